"""What keeping the frozen layers' hidden states saves (model.frozen_cache_dir): python -m benchmarks.frozen.

Capture of one step of 100 edits, and scoring of their edit, rephrased and unrelated prompts, three ways: without the
cache, with a warm one (every prompt is in it: the warm-up round saw to that) and with a cold one (a fresh folder
every time: the lower layers run and what they give is written). Sites are the MLPs' down projections of layers 24-27,
so 24 of the embedded model's 30 layers are frozen.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.embedded import config
from benchmarks.evaluate import KINDS, different
from benchmarks.timing import at_least, finish, parser, race, ratio, relative_error, show, start
from config.schema import Config
from data.batches import Batch, Tokens, passes, step_batches, tokenize
from editor.capture import capture_together
from editor.frozen import INSTALLED, FrozenLayers, install
from editor.sites import EditSite, find_sites
from editor.states import StateFile
from lifelong.answers import probes, token_accuracy
from lifelong.setup import prepare
from model import load_model

SITES = [f"model.layers.{layer}.mlp.down_proj" for layer in (24, 25, 26, 27)]
WAYS = ("without", "warm", "cold")


def captured(model: PreTrainedModel, sites: Sequence[EditSite], batches: Sequence[Batch], cfg: Config) -> list[Tensor]:
    """Value gradients [N, V] of a step by site, captured as editor.base does."""
    groups = passes(batches, cfg.editor.tokens_per_pass)
    found = [one for group in groups for one in capture_together(model, sites, group, cfg.editor.token)]
    return [torch.cat([one.rows[index].gradients_NV for one in found]) for index in range(len(sites))]


class Caches:
    """The model without a cache, with one that is kept, and with a new one every time."""

    def __init__(self, model: PreTrainedModel, cfg: Config, folder: Path) -> None:
        cfg.model.frozen_cache_dir = str(folder / "installed")
        begun = time.perf_counter()
        install(model, cfg.model)
        self.install_s = time.perf_counter() - begun
        self.model, self.folder = model, folder
        self.frozen: FrozenLayers = INSTALLED.pop(model)
        self.warm, self._numbers = self._file("warm"), count()

    def _file(self, name: str) -> StateFile:
        like = self.frozen.file
        return StateFile(self.folder / name, like.width, like.dtype, like.most)

    @contextmanager
    def way(self, name: str) -> Iterator[None]:
        """The model as that way runs it; without a cache again afterwards."""
        if name != "without":
            self.frozen.file = self.warm if name == "warm" else self._file(f"cold-{next(self._numbers)}")
            INSTALLED[self.model] = self.frozen
        try:
            yield
        finally:
            INSTALLED.pop(self.model, None)


def measure(cfg: Config, rounds: int, device: torch.device, folder: Path) -> dict[str, Any]:
    """Times and ratios of every way, and how far its gradients and scores are from those without a cache."""
    prepared = prepare(cfg)
    model = load_model(cfg.model, device)
    sites, caches = find_sites(model, cfg.model.edit_modules), Caches(model, cfg, folder)
    edits = list(islice(iter(prepared.data.edits), cfg.dataset.n_edits))
    batches = step_batches(prepared.tokenizer, edits, cfg.dataset.batch_size).edit
    pairs = [probes(edit, mhop=False)[kind] for edit in edits for kind in KINDS]
    rows = tokenize(prepared.tokenizer, pairs)
    gradients: dict[str, list[Tensor]] = {}
    scores: dict[str, list[float]] = {}

    def keep(found: dict[str, Any], name: str, work: Callable[[], Any]) -> None:
        with caches.way(name):
            found[name] = work()

    capture = partial(captured, model, sites, batches, cfg)
    score = partial(token_accuracy, model, rows, cfg.eval.tokens_per_batch)
    runs = {f"capture, {name}": partial(keep, gradients, name, capture) for name in WAYS}
    runs |= {f"scoring, {name}": partial(keep, scores, name, score) for name in WAYS}
    times = race(runs, rounds=rounds, device=device)
    found = {
        name: timed.summary() | {"ratio": ratio(times[f"{name.split(',')[0]}, without"], timed)}
        for name, timed in times.items()
    }
    for name in WAYS:
        both = zip(gradients[name], gradients["without"], strict=True)
        found[f"capture, {name}"]["gradient_difference"] = max(relative_error(*pair) for pair in both)
        found[f"scoring, {name}"]["different_scores"] = different(scores[name], scores["without"])
    size = {"edits": len(edits), "sites": len(sites), "frozen_layers": caches.frozen.first}
    size |= {"layers": len(model.base_model.layers), "hidden_size": caches.warm.width, "rows": len(rows)}
    size["install_s"] = caches.install_s
    return {"model": cfg.model.name, **size, **held(caches.warm, rows), "ways": found}


def held(file: StateFile, rows: Sequence[Tokens]) -> dict[str, Any]:
    """What the warm cache takes, index included, by token of the distinct prompts that it holds."""
    distinct = {tuple(row.input_ids) for row in rows}
    assert len(file) == len(distinct), "every prompt is in the cache, and nothing else"
    tokens, taken = sum(map(len, distinct)), file.states.stat().st_size + file.index.stat().st_size
    return {"prompts": len(distinct), "tokens": tokens, "bytes": taken, "bytes_per_token": taken / tokens}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, then one JSON line."""
    args = parser("frozen", __doc__, rounds=5).parse_args(argv)
    device = start(args)
    cfg = config(quick=args.quick)
    if not args.quick:
        cfg.model.edit_modules = SITES
    with tempfile.TemporaryDirectory(prefix="bench-frozen-") as folder:
        found = measure(cfg, args.rounds, device, Path(folder))
    ways = found["ways"]
    columns = ("s", "cpu_s", "ratio", "gradient_difference", "different_scores")
    show(
        ("way", "s", "processor s", "ratio", "gradients differ by", "different scores"),
        [(name, *(row.get(column) for column in columns)) for name, row in ways.items()],
    )
    print(
        f"{found['frozen_layers']} of {found['layers']} layers frozen; {found['prompts']} prompts of {found['tokens']} "
        f"tokens take {found['bytes'] / 2**20:.1f} MiB, {found['bytes_per_token']:.0f} bytes a token; "
        f"{found['install_s']:.2f} s to install"
    )
    targets = {
        f"times faster {what}, warm cache": at_least(ways[f"{what}, warm"]["ratio"], 2.0)
        for what in ("capture", "scoring")
    }
    return finish("frozen", args, device, found, {} if args.quick else targets)


if __name__ == "__main__":
    main()
