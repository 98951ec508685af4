"""A whole edit step of the embedded model beside its floor and the plain way: python -m benchmarks.step.

The step: 100 edits of `facts`, micro-batches of 10, three sites, statistics past their warm-up, so that it whitens.

- ours: tokenizing, editor.step, and the line of metrics.jsonl, as a run does them; split by phase.
- floor: the bare forward and backward pass of each micro-batch down to the lowest site's output, with answer-only
  logits; nothing is captured.
- plain: what the published program does (benchmarks.plain); checked to give the same shifts.
"""

from __future__ import annotations

import statistics as stats
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.embedded import Bench, config, set_up
from benchmarks.plain import PlainStatistics, plain_step
from benchmarks.timing import (
    at_least,
    at_most,
    finish,
    parser,
    race,
    ratio,
    relative_error,
    show,
    start,
    synchronize,
)
from data.batches import Batch
from editor import base
from editor.base import StepReport, Stopwatch
from editor.capture import answer_logits
from editor.sites import EditSite
from lifelong.recorder import Recorder


@contextmanager
def split_phases(device: torch.device) -> Iterator[dict[str, float]]:
    """While open, phases wait for the device, and the time of the backward passes is told apart."""
    seconds: dict[str, float] = defaultdict(float)
    grad = torch.autograd.grad

    def timed_grad(*args: Any, **options: Any) -> Any:
        synchronize(device)
        begun = time.perf_counter()
        found = grad(*args, **options)
        synchronize(device)
        seconds["backward"] += time.perf_counter() - begun
        return found

    class Waiting(Stopwatch):
        @contextmanager
        def __call__(self, phase: str) -> Iterator[None]:
            with super().__call__(phase):
                yield
                synchronize(device)

    with patch("torch.autograd.grad", timed_grad), patch.object(base, "Stopwatch", Waiting):
        yield seconds


def our_step(bench: Bench, recorder: Recorder) -> dict[str, float]:
    """One step as a run makes it; seconds by phase."""
    begun = time.perf_counter()
    batches = bench.batches()
    tokenized = time.perf_counter()
    with split_phases(bench.device) as seconds:
        report: StepReport = bench.editor.step(batches, warm_up=False)
    stepped = time.perf_counter()
    recorder.log({"event": "step", **asdict(report)})
    ended = time.perf_counter()
    found = {"tokenize": tokenized - begun, "forward": report.seconds["capture"] - seconds["backward"]}
    found |= {"backward": seconds["backward"]}
    found |= {name: value for name, value in report.seconds.items() if name != "capture"}
    found |= {"other": stepped - tokenized - sum(report.seconds.values()), "logging": ended - stepped}
    return found | {"step": ended - begun}


def bare_pass(model: nn.Module, lowest: nn.Module, batch: Batch) -> Tensor:
    """The floor: forward, loss on the answers, backward down to the lowest site's output."""
    found: list[Tensor] = []

    def begin_graph(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        found.append(output.detach().requires_grad_(True))
        return found[0]

    handle = lowest.register_forward_hook(begin_graph)
    try:
        with torch.enable_grad():
            loss = cross_entropy(*answer_logits(model, batch))
            return torch.autograd.grad(loss, found)[0]
    finally:
        handle.remove()


def lowest_site(model: nn.Module, sites: Sequence[EditSite]) -> nn.Module:
    """The site that the model computes first."""
    order = {module: index for index, module in enumerate(model.modules())}
    return min((site.module for site in sites), key=order.__getitem__)


def same_shifts(bench: Bench) -> float:
    """Largest relative distance of a site's shift, ours to the plain way's."""
    bench.restore()
    plain = plain_step(bench.loaded.model, bench.editor.sites, bench.batches().edit, plain_statistics(bench), bench.cfg)
    bench.restore()
    bench.editor.step(bench.batches(), warm_up=False)
    ours = [bench.editor.last_shifts[site.name].matrix() for site in bench.editor.sites]
    return max(relative_error(*pair) for pair in zip(ours, plain, strict=True))


def plain_statistics(bench: Bench) -> dict[tuple[int, int], PlainStatistics]:
    """Statistics of the plain way, as they stand before the step."""
    return {shape: PlainStatistics.of(statistics) for shape, statistics in bench.editor.statistics.items()}


def measure(bench: Bench, rounds: int, scratch: Path) -> dict[str, Any]:
    """Times of the three ways, ours split by phase."""
    model, sites = bench.loaded.model, bench.editor.sites
    phases: list[dict[str, float]] = []
    lowest = lowest_site(model, sites)

    def floor() -> None:
        for batch in bench.batches().edit:
            bare_pass(model, lowest, batch.to(bench.device))

    difference = same_shifts(bench)
    with Recorder(scratch, bench.cfg.wandb, "step", {}) as recorder:
        runs = {
            "floor": floor,
            "ours": lambda: phases.append(our_step(bench, recorder)),
            "plain": lambda: plain_step(model, sites, bench.batches().edit, plain_statistics(bench), bench.cfg),
        }
        times = race(runs, rounds=rounds, device=bench.device, prepare=bench.restore)
    counted = phases[-rounds:]
    passes = stats.median(step["forward"] + step["backward"] for step in counted)
    return {
        **{name: timed.summary() for name, timed in times.items()},
        "phases_s": {name: stats.median(step[name] for step in counted) for name in counted[0]},
        "share_of_the_rest": stats.median(rest(step) / step["step"] for step in counted),
        "passes_over_floor": passes / times["floor"].median,
        "plain_over_ours": ratio(times["plain"], times["ours"]),
        "shift_difference": difference,
    }


def rest(step: dict[str, float]) -> float:
    """Seconds of a step that are neither forward nor backward."""
    return step["step"] - step["forward"] - step["backward"]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, then one JSON line."""
    args = parser("step", __doc__, rounds=5).parse_args(argv)
    device = start(args)
    cfg = config(quick=args.quick)
    with tempfile.TemporaryDirectory(prefix="bench-step-") as scratch:
        found = measure(set_up(cfg, device), args.rounds, Path(scratch))
    whole = found["phases_s"]["step"]
    show(("phase", "s", "share"), [(name, value, value / whole) for name, value in found["phases_s"].items()])
    show(("way", "s", "processor s"), [(name, found[name]["s"], found[name]["cpu_s"]) for name in WAYS])
    print(f"shifts differ by {found['shift_difference']:.1e} from the plain way's")
    targets = {
        "share of the step beside forward and backward": at_most(found["share_of_the_rest"], 0.1),
        "forward and backward over the floor": at_most(found["passes_over_floor"], 1.05),
        "times faster than the plain way": at_least(found["plain_over_ours"], 1.4),
    }
    size = {"edits": cfg.dataset.n_edits, "batch_size": cfg.dataset.batch_size, "sites": len(cfg.model.edit_modules)}
    return finish("step", args, device, {"model": cfg.model.name, **size, **found}, {} if args.quick else targets)


WAYS = ("floor", "ours", "plain")

if __name__ == "__main__":
    main()
