"""A whole edit step of the embedded model beside its floor and the plain way: python -m benchmarks.step.

The step: 100 edits of `facts`, micro-batches of 10, three sites, statistics past their warm-up, so that it whitens.

- ours: tokenizing, editor.step, and the line of metrics.jsonl, as a run does them; split by phase.
- floor: the bare forward and backward pass of the same micro-batches down to the lowest site's output, with
  answer-only logits; nothing is captured. Held against capture micro-batch by micro-batch, taking turns.
- plain: what the published program does (benchmarks.plain); checked to give the same shifts.
"""

from __future__ import annotations

import statistics as stats
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.plain import PlainStatistics, plain_step
from benchmarks.timing import Timed, at_least, at_most, finish, parser, race, ratio, relative_error, show, start
from benchmarks.timing import synchronize
from config.schema import Config
from data.base import Edit
from data.batches import Batch, step_batches, steps
from editor import base
from editor.base import Editor, StepReport, Stopwatch
from editor.cache import MemoryCache
from editor.capture import answer_logits, capture
from editor.setup import Loaded, build_editor, prepare
from editor.sites import EditSite
from model import load_model
from report.recorder import Recorder
from tests.reference_cases import compose_config
from tests.tiny import tiny_words

SITES = [f"model.layers.{layer}.mlp.down_proj" for layer in (25, 26, 27)]


def config(*, quick: bool) -> Config:
    """The measured run; `quick` on a tiny model."""
    if quick:
        return compose_config(tiny_words("num_seq=1", "num_seq_zsre=4"))
    words = ["dataset=facts", "model=smollm2-135m", "editor=stableedit", "wandb.mode=disabled", "editor.alpha=10"]
    words += ["editor.lr=1e-4", "editor.batch_size=512", "num_seq=1", "num_seq_zsre=3"]
    return compose_config([*words, f"model.edit_modules=[{','.join(SITES)}]"])


@dataclass(slots=True)
class Bench:
    """An editor past its warm-up, the step's edits, and the state that every measured step starts from."""

    cfg: Config
    loaded: Loaded
    editor: Editor
    edits: list[Edit]
    device: torch.device
    saved: dict[str, Tensor]

    def batches(self) -> list[Batch]:
        """The step's micro-batches of edit prompts."""
        return step_batches(self.loaded.tokenizer, self.edits, self.cfg.dataset.batch_size).edit

    def restore(self) -> None:
        """Weights, statistics and last shifts as before the step."""
        self.editor.load_state_tensors(self.saved)


def set_up(cfg: Config, device: torch.device) -> Bench:
    """Load, warm up on training edits, keep the state."""
    prepared = prepare(cfg)
    loaded = Loaded(load_model(cfg.model, device), prepared.tokenizer)
    editor = build_editor(cfg, loaded, MemoryCache(), device)
    assert prepared.data.training is not None
    for edits in steps(iter(prepared.data.training), cfg.dataset.n_edits):
        editor.step(step_batches(loaded.tokenizer, edits, cfg.dataset.batch_size), warm_up=True)
    assert all(statistics.whitens for statistics in editor.statistics.values()), "too few rows: warm up longer"
    saved = {name: tensor.clone() for name, tensor in editor.state_tensors().items()}
    edits = list(islice(iter(prepared.data.edits), cfg.dataset.n_edits))
    return Bench(cfg, loaded, editor, edits, device, saved)


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
    batches = step_batches(bench.loaded.tokenizer, bench.edits, bench.cfg.dataset.batch_size)
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


def capture_over_bare(bench: Bench, rounds: int) -> tuple[float, float]:
    """Seconds of all micro-batches (capture, bare): each one's median, taking turns batch by batch."""
    model, sites = bench.loaded.model, bench.editor.sites
    lowest, totals = lowest_site(model, sites), [0.0, 0.0]
    for batch in bench.batches():
        moved = batch.to(bench.device)
        runs: dict[str, Callable[[], Any]] = {
            "capture": lambda moved=moved: capture(model, sites, moved, bench.cfg.editor.token),
            "bare": lambda moved=moved: bare_pass(model, lowest, moved),
        }
        times = race(runs, rounds=rounds, device=bench.device)
        totals[0] += times["capture"].median
        totals[1] += times["bare"].median
    return totals[0], totals[1]


def same_shifts(bench: Bench) -> float:
    """Largest relative distance of a site's shift, ours to the plain way's."""
    bench.restore()
    plain = plain_step(bench.loaded.model, bench.editor.sites, bench.batches(), plain_statistics(bench), bench.cfg)
    bench.restore()
    bench.editor.step(
        step_batches(bench.loaded.tokenizer, bench.edits, bench.cfg.dataset.batch_size), warm_up=False
    )
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
        for batch in bench.batches():
            bare_pass(model, lowest, batch.to(bench.device))

    difference = same_shifts(bench)
    with Recorder(scratch, bench.cfg.wandb, "step", {}) as recorder:
        runs = {
            "floor": floor,
            "ours": lambda: phases.append(our_step(bench, recorder)),
            "plain": lambda: plain_step(model, sites, bench.batches(), plain_statistics(bench), bench.cfg),
        }
        times = race(runs, rounds=rounds, device=bench.device, prepare=bench.restore)
    bench.restore()
    captured, bare = capture_over_bare(bench, max(3, rounds))
    counted = phases[-rounds:]
    return {
        **{name: timed.summary() for name, timed in times.items()},
        "phases_s": {name: stats.median(step[name] for step in counted) for name in counted[0]},
        "share_of_the_rest": stats.median(rest(step) / step["step"] for step in counted),
        "capture_s": captured,
        "bare_s": bare,
        "capture_over_bare": captured / bare,
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
        "capture over the bare passes": at_most(found["capture_over_bare"], 1.05),
        "times faster than the plain way": at_least(found["plain_over_ours"], 1.4),
    }
    size = {"edits": cfg.dataset.n_edits, "batch_size": cfg.dataset.batch_size, "sites": len(cfg.model.edit_modules)}
    return finish("step", args, device, {"model": cfg.model.name, **size, **found}, {} if args.quick else targets)


WAYS = ("floor", "ours", "plain")

if __name__ == "__main__":
    main()
