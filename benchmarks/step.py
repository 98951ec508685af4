"""A whole edit step of the embedded model beside its floor and the plain way: python -m benchmarks.step.

The step: 100 edits of `facts`, micro-batches of 10, three sites, statistics past their warm-up, so that it whitens.

- ours: tokenizing, editor.step, and the line of metrics.jsonl, as a run does them; split by phase, of which `capture`
  is the forward and backward passes.
- floor: the bare forward and backward pass of each micro-batch down to the lowest site's output, with answer-only
  logits; nothing is captured.
- plain: what the published program does (benchmarks.plain); checked to give the same shifts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.embedded import Bench, phases_wait
from benchmarks.plain import PlainStatistics, plain_capture, plain_step
from benchmarks.timing import Found, at_least, at_most, command, race, relative_error
from editor.capture import answer_logits
from lifelong.recorder import Recorder


def ours(bench: Bench, recorder: Recorder) -> dict[str, float]:
    """One step as a run makes it; seconds by phase."""
    begun = time.perf_counter()
    batches = bench.batches()
    tokenized = time.perf_counter()
    with phases_wait(bench.device):
        report = bench.editor.step(batches, warm_up=False)
    stepped = time.perf_counter()
    recorder.log({"event": "step", **asdict(report)})
    ended = time.perf_counter()
    phases = {"tokenize": tokenized - begun, **report.seconds, "logging": ended - stepped}
    return phases | {"other": stepped - tokenized - sum(report.seconds.values()), "step": ended - begun}


def plain(bench: Bench) -> list[Tensor]:
    """The step as published; the shift of every site."""
    statistics = {site.shape: PlainStatistics.of(bench.editor.statistics[site.shape]) for site in bench.editor.sites}
    captured = plain_capture(bench.model, bench.editor.sites, bench.batches().edit)
    return plain_step(bench.editor.sites, captured, statistics, bench.cfg.editor)


def floor(bench: Bench) -> None:
    """Forward, loss on the answers, backward down to the lowest site's output."""
    found: list[Tensor] = []

    def begin_graph(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        found[:] = [output.detach().requires_grad_(True)]
        return found[0]

    sites = {site.module for site in bench.editor.sites}
    lowest = next(module for module in bench.model.modules() if module in sites)
    handle = lowest.register_forward_hook(begin_graph)
    for batch in bench.batches().edit:
        with torch.enable_grad():
            torch.autograd.grad(cross_entropy(*answer_logits(bench.model, batch.to(bench.device))), found)
    handle.remove()


def same_shifts(bench: Bench) -> float:
    """Largest relative distance of a site's shift, ours to the plain way's."""
    expected = plain(bench)
    bench.restore()
    bench.editor.step(bench.batches(), warm_up=False)
    found = [bench.editor.last_shifts[site.name].matrix() for site in bench.editor.sites]
    return max(relative_error(*pair) for pair in zip(found, expected, strict=True))


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Times of the three ways, ours split by phase."""
    bench = Bench((25, 26, 27), device, quick=args.quick)
    bench.warm_up()
    difference, steps = same_shifts(bench), list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as scratch, Recorder(Path(scratch), bench.cfg.wandb, "step", {}) as recorder:
        ways = {
            "floor": lambda: floor(bench),
            "ours": lambda: steps.append(ours(bench, recorder)),
            "plain": lambda: plain(bench),
        }
        times = race(ways, args.rounds, device, prepare=lambda _: bench.restore())
    counted = pd.DataFrame(steps[-args.rounds :])
    phases, rest = counted.median(), (1 - counted["capture"] / counted["step"]).median()
    over_floor, faster = phases["capture"] / times["s"]["floor"], times["s"]["plain"] / times["s"]["ours"]
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
