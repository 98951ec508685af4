"""Peak extra memory of one step at Mistral-7B's shapes, without a transformer: python -m benchmarks.memory."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from typing import Any, cast
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel

from benchmarks.embedded import RUN
from benchmarks.plain import Pair, PlainStatistics, plain_step
from benchmarks.synthetic import GRADIENT_NORM, KEY_NORM, rows, statistics
from benchmarks.timing import ExtraMemory, Found, at_most, command, started
from config.compose import compose_config
from data.batches import IGNORED, Batch, StepBatches
from editor.capture import Captured, Rows
from editor.sites import EditSite, find_sites
from editor.stableedit import StableEdit

MICRO_BATCHES = 10
SIZE = {"sites": 4, "rows": 500, "d_k": 14336, "d_v": 4096, "dtype": "bfloat16"}
QUICK = {"sites": 2, "rows": 40, "d_k": 512, "d_v": 128, "dtype": "float32"}


def rows_of(sites: Sequence[EditSite], count: int, device: torch.device) -> list[Pair]:
    """A micro-batch's keys and value gradients of every site, in place of what a capture would give."""
    draw = partial(rows, count, device=device)
    return [(draw(site.d_k, KEY_NORM), draw(site.d_v, GRADIENT_NORM)) for site in sites]


def plain(editor: StableEdit, count: int, device: torch.device) -> None:
    """The step as published, its backward pass replaced by weight gradients of ready rows."""

    def captured() -> Iterator[list[Pair]]:
        for _ in range(MICRO_BATCHES):
            pairs = rows_of(editor.sites, count, device)
            for site, (keys_NK, gradients_NV) in zip(editor.sites, pairs, strict=True):
                weight: Any = site.module.weight
                gradient = (gradients_NV.T @ keys_NK).to(weight.dtype)
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
            yield pairs

    kept = {shape: PlainStatistics.of(found) for shape, found in editor.statistics.items()}
    plain_step(editor.sites, captured(), kept, editor.cfg)


def ours(editor: StableEdit, count: int, device: torch.device) -> None:
    """editor.step, its capture replaced by one that hands out ready rows."""
    empty = Batch(*(torch.full((1, 1), value) for value in (0, 1, IGNORED)))

    def ready(_: object, sites: Sequence[EditSite], group: Sequence[Batch], *__: object) -> list[Captured]:
        loss = torch.zeros((), device=device)
        return [Captured(loss, 1, [Rows(*pair) for pair in rows_of(sites, count, device)]) for _ in group]

    with patch("editor.base.capture_together", ready):
        editor.step(StepBatches([empty] * MICRO_BATCHES, [], []), warm_up=False)


@torch.no_grad()
def one_way(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """What a way took, in this process; of quick runs the norms of the shifts too."""
    device = started(args)
    like = {"bias": False, "dtype": getattr(torch, args.dtype), "device": device}
    model = nn.Sequential(*(nn.Linear(args.d_k, args.d_v, **like) for _ in range(args.sites))).requires_grad_(False)
    cfg = compose_config(["dataset=facts", *RUN, "editor.lr=1e-6", "editor.batch_size=512"]).editor
    sites = find_sites(model, [str(index) for index in range(args.sites)])
    editor = StableEdit(cfg, cast(PreTrainedModel, model), sites, solve_device=device)
    editor.statistics = {shape: statistics(*shape, device) for shape in editor.statistics}
    before = [site.weight.double() for site in sites] if args.quick else []
    memory = ExtraMemory(device)
    torch.manual_seed(1)
    {"plain": plain, "ours": ours}[way](editor, args.rows // MICRO_BATCHES, device)
    extra = memory.peak()
    norms = [(site.weight - old).norm().item() for site, old in zip(sites, before, strict=False)]
    return {"way": way, "extra_mib": extra, "before_mib": memory.before, "shift_norms": norms}


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Both ways, each in a process of its own."""
    size = QUICK if args.quick else {name: getattr(args, name) for name in SIZE}
    sized = argparse.Namespace(**vars(args) | size)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        table = pd.DataFrame(pool.map(one_way, ("plain", "ours"), repeat(sized)))
    share = table["extra_mib"][1] / max(table["extra_mib"][0], 1e-9)
    targets = {"share of the plain way": at_most(share, 1 / 3)}
    return Found(table, ["way", "extra_mib", "before_mib"], {**size, "share": share}, targets)


options: dict[str, Any] = {name: {"type": type(usual), "default": usual} for name, usual in SIZE.items()}
options["dtype"]["choices"] = ("bfloat16", "float32")
main = command("memory", __doc__, measure, **options)

if __name__ == "__main__":
    main()
