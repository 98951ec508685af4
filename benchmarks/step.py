"""A whole edit step of the embedded model beside its floor and the plain way: python -m benchmarks.step."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.benchmark.utils.timer import timer

from benchmarks.embedded import Bench
from benchmarks.plain import PlainStatistics, plain_capture, plain_step
from benchmarks.timing import Found, at_least, at_most, command, race, relative_error
from editor.base import Stopwatch
from editor.capture import answer_logits
from lifelong.recorder import Recorder


def ours(bench: Bench, recorder: Recorder) -> dict[str, float]:
    """One step as a run makes it; seconds by phase."""
    watch = Stopwatch()
    with patch("time.perf_counter", timer), watch("step"):  # PyTorch's timer waits for a GPU
        with watch("tokenize"):
            batches = bench.batches()
        report = bench.editor.step(batches, warm_up=False)
        with watch("logging"):
            recorder.log({"event": "step", **asdict(report)})
    found = {**watch.seconds, **report.seconds}
    return found | {"other": 2 * found["step"] - sum(found.values())}


def plain(bench: Bench) -> list[Tensor]:
    """The step as published; the shift of every site."""
    statistics = {shape: PlainStatistics.of(found) for shape, found in bench.editor.statistics.items()}
    captured = plain_capture(bench.model, bench.editor.sites, bench.batches().edit)
    return plain_step(bench.editor.sites, captured, statistics, bench.cfg.editor)


def floor(bench: Bench) -> None:
    """Forward, loss on the answers, backward down to the lowest site's output."""
    found: list[Tensor] = []

    def begin_graph(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        found[:] = [output.detach().requires_grad_(True)]
        return found[0]

    handle = bench.editor.sites[0].module.register_forward_hook(begin_graph)
    for batch in bench.batches().edit:
        with torch.enable_grad():
            torch.autograd.grad(cross_entropy(*answer_logits(bench.model, batch.to(bench.device))), found)
    handle.remove()


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Times of the three ways, ours split by phase, and how far the shifts are from the plain way's."""
    bench = Bench((25, 26, 27), device, quick=args.quick)
    bench.warm_up()
    saved = {name: tensor.clone() for name, tensor in bench.editor.state_tensors().items()}
    steps: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch, Recorder(Path(scratch), bench.cfg.wandb, "step", {}) as recorder:
        ways: dict[str, Callable[[], Any]] = {
            "floor": lambda: floor(bench),
            "ours": lambda: steps.append(ours(bench, recorder)),
            "plain": lambda: plain(bench),
        }
        times, found = race(ways, args.rounds, device, prepare=lambda _: bench.editor.load_state_tensors(saved))
    bench.editor.load_state_tensors(saved)
    bench.editor.step(bench.batches(), warm_up=False)
    shifts = [bench.editor.last_shifts[site.name].matrix() for site in bench.editor.sites]
    counted = pd.DataFrame(steps[-args.rounds :])
    phases, rest = counted.median(), (1 - counted["capture"] / counted["step"]).median()
    over_floor, faster = phases["capture"] / times["s"]["floor"], times["s"]["plain"] / times["s"]["ours"]
    difference = max(map(relative_error, shifts, found["plain"]))
    figures = {"shift_difference": difference, "phases_s": phases.to_dict(), "edits": len(bench.edits)}
    figures |= {"share_of_the_rest": rest, "passes_over_floor": over_floor, "plain_over_ours": faster}
    targets = {
        "share of the step beside forward and backward": at_most(rest, 0.1),
        "forward and backward over the floor": at_most(over_floor, 1.05),
        "times faster than the plain way": at_least(faster, 1.4),
    }
    parts = pd.DataFrame({"way": "ours: " + phases.index, "s": phases.to_numpy()})
    return Found(pd.concat([times.reset_index(), parts]), ["way", "s", "cpu_s"], figures, targets)


main = command("step", __doc__, measure, rounds=5)

if __name__ == "__main__":
    main()
