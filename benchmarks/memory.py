"""Peak extra memory of one step at Mistral-7B's shapes: python -m benchmarks.memory.

Four linear sites 14336x4096 and nothing around them: no transformer runs, the rows of a step (500 a site, in ten
micro-batches) are handed to editor.step in place of what a capture would give. Extra is what a step needs beyond
the weights and statistics that are there before it. Each way runs in a process of its own.

Plain, as published: a weight gradient per site, the rows in files, a decomposition per site, the d_k x d_k system, all
sites' shifts whole.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import nn

from benchmarks import synthetic
from benchmarks.embedded import bare_editor, step_of_rows
from benchmarks.plain import Pair, PlainStatistics, plain_step
from benchmarks.timing import ExtraMemory, Found, at_most, command
from editor.stableedit import StableEdit
from lifelong.process import run_python

MICRO_BATCHES = 10
SIZE = {"sites": 4, "rows": 500, "d_k": 14336, "d_v": 4096, "dtype": "bfloat16"}
QUICK = {"sites": 2, "rows": 40, "d_k": 512, "d_v": 128, "dtype": "float32"}


def plain(editor: StableEdit, rows: int, device: torch.device) -> None:
    """The step as published, its backward pass replaced by weight gradients of ready rows."""

    def captured() -> Iterator[list[Pair]]:
        for _ in range(MICRO_BATCHES):
            pairs = [synthetic.rows_of(site, rows, device) for site in editor.sites]
            for site, (keys_NK, gradients_NV) in zip(editor.sites, pairs, strict=True):
                weight: Any = site.module.weight
                gradient = (gradients_NV.T @ keys_NK).to(weight.dtype)
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
            yield pairs

    statistics = {site.shape: PlainStatistics.of(editor.statistics[site.shape]) for site in editor.sites}
    plain_step(editor.sites, captured(), statistics, editor.cfg)


@torch.no_grad()
def one_way(size: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What a way took, in this process; of quick runs the norms of the shifts too."""
    like = {"bias": False, "dtype": getattr(torch, size.dtype), "device": device}
    model = nn.Sequential(*(nn.Linear(size.d_k, size.d_v, **like) for _ in range(size.sites))).requires_grad_(False)
    editor = bare_editor(model, [str(index) for index in range(size.sites)], device)
    for statistics in editor.statistics.values():
        statistics.load_state_dict(synthetic.statistics(size.d_k, size.d_v, device).state_dict())
    before = [site.weight.double() for site in editor.sites] if size.quick else []
    memory, rows = ExtraMemory(device), size.rows // MICRO_BATCHES
    torch.manual_seed(1)
    if size.way == "plain":
        plain(editor, rows, device)
    else:
        step_of_rows(editor, lambda site: synthetic.rows_of(site, rows, device), MICRO_BATCHES, device)
    found = {"way": size.way, "extra_mib": memory.peak(), "before_mib": memory.before}
    norms = [(site.weight - old).norm().item() for site, old in zip(editor.sites, before, strict=False)]
    return found | {"shift_norms": norms}


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Both ways, each in a process of its own; with --way, as such a process."""
    size = QUICK if args.quick else {name: getattr(args, name) for name in SIZE}
    if args.way:
        return Found(pd.DataFrame([one_way(argparse.Namespace(**vars(args) | size), device)]), [], {}, {})
    words = [f"--{name.replace('_', '-')}={value}" for name, value in size.items()]
    words += [f"--device={args.device}", *([f"--threads={args.threads}"] if args.threads else [])]
    words += ["--quick"] if args.quick else []
    printed = [run_python("-m", "benchmarks.memory", "--way", way, *words) for way in ("plain", "ours")]
    table = pd.DataFrame([json.loads(lines.splitlines()[-1])["table"][0] for lines in printed])
    share = table["extra_mib"][1] / max(table["extra_mib"][0], 1e-9)
    targets = {"share of the plain way": at_most(share, 1 / 3)}
    return Found(table, ["way", "extra_mib", "before_mib"], {**size, "share": share}, targets)


options: dict[str, Any] = {name: {"type": type(usual), "default": usual} for name, usual in SIZE.items()}
options["dtype"]["choices"] = ("bfloat16", "float32")
main = command("memory", __doc__, measure, **options, way={"help": argparse.SUPPRESS})

if __name__ == "__main__":
    main()
