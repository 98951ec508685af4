"""Peak extra memory of one step at Mistral-7B's shapes: python -m benchmarks.memory.

Four linear sites 14336x4096 and nothing around them: no transformer runs, the rows of a step (500 a site, in ten
micro-batches) are handed to editor.step in place of what a capture would give. Extra is what a step needs beyond
the weights and statistics that are there before it. Each way runs in a process of its own.

Plain, as published: a weight gradient per site, the rows in files, a decomposition, the d_k x d_k system, all sites'
shifts whole. To save time it decomposes once, not once a site: the peak, in the last site's system, is the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks import synthetic
from benchmarks.plain import PlainStatistics, plain_ridge
from benchmarks.timing import ExtraMemory, at_most, finish, parser, show, start
from config.schema import EditorConfig, StatisticsMode
from data.batches import IGNORED, Batch, StepBatches
from editor import base
from editor.base import Workbench
from editor.cache import MemoryCache
from editor.capture import Captured, Rows
from editor.sites import find_sites
from editor.stableedit import StableEdit
from tests.reference_cases import PROJECT

MICRO_BATCHES = 10
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
CFG = EditorConfig(name="stableedit", RunningMeanStd_mode=StatisticsMode.stable, alpha=10.0, lr=1e-6, batch_size=512)


class Sites(nn.Module):
    """A model that is nothing but its sites."""

    def __init__(self, count: int, d_k: int, d_v: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        linear = [nn.Linear(d_k, d_v, bias=False, dtype=dtype, device="meta") for _ in range(count)]
        self.sites = nn.ModuleList(linear).to_empty(device=device).requires_grad_(False)
        for site in self.sites:
            site.weight.normal_(std=0.02)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sites[0].weight.device

    def get_output_embeddings(self) -> None:
        """There is no head."""


def set_up(args: argparse.Namespace, device: torch.device) -> tuple[StableEdit, int]:
    """An editor past its warm-up, and how many rows a micro-batch gives per site."""
    model = Sites(args.sites, args.d_k, args.d_v, DTYPES[args.dtype], device)
    sites = find_sites(model, [f"sites.{index}" for index in range(args.sites)])
    editor = StableEdit(CFG, Workbench(model, sites, MemoryCache(), device, 0))  # type: ignore[arg-type]
    for statistics in editor.statistics.values():
        statistics.load_state_dict(synthetic.statistics(args.d_k, args.d_v, device).state_dict())
    return editor, args.rows // MICRO_BATCHES


def rows_of(editor: StableEdit, rows: int) -> list[Rows]:
    """One micro-batch's rows of every site."""
    device = editor.solve_device
    return [Rows(synthetic.keys(rows, s.d_k, device), synthetic.gradients(rows, s.d_v, device)) for s in editor.sites]


def our_step(editor: StableEdit, rows: int) -> None:
    """editor.step, its capture replaced by one that hands out ready rows."""
    empty = Batch(*(torch.full((1, 1), value) for value in (0, 1, IGNORED)))
    batches = StepBatches([empty] * MICRO_BATCHES, [], [])
    loss = torch.zeros((), device=editor.solve_device)

    def ready(_: object, __: object, group: Sequence[Batch], ___: object) -> list[Captured]:
        return [Captured(loss, rows, rows_of(editor, rows)) for _ in group]

    with patch.object(base, "capture_together", ready):
        editor.step(batches, warm_up=False)


def plain_step(editor: StableEdit, rows: int) -> None:
    """The same step as published."""
    sites = editor.sites
    merged = PlainStatistics.of(editor.statistics[sites[0].shape])
    with tempfile.TemporaryDirectory(prefix="plain-memory-") as folder:
        for number in range(MICRO_BATCHES):
            for index, (site, row) in enumerate(zip(sites, rows_of(editor, rows), strict=True)):
                gradient = row.gradients_NV.T @ row.keys_NK
                _pile_up(site.module.weight, (gradient if site.transposed else gradient.T).to(site.weight.dtype))
                merged.add(row.keys_NK, row.gradients_NV)
                torch.save((row.keys_NK, row.gradients_NV), Path(folder) / f"{number}_{index}.pt")
        root_VV, shifts = merged.root(CFG.whitening_floor, relative=False), []
        for index in range(len(sites)):
            found = [torch.load(Path(folder) / f"{number}_{index}.pt") for number in range(MICRO_BATCHES)]
            keys_NK, gradients_NV = (torch.cat(parts) for parts in zip(*found, strict=True))
            normal_NK, white_NV = merged.normalize(keys_NK, gradients_NV, root_VV)
            targets_NV = -CFG.lr * normal_NK.square().sum(1, keepdim=True) * white_NV
            shifts.append(plain_ridge(keys_NK, targets_NV, CFG.alpha or 0.0))
    for site, shift_KV in zip(sites, shifts, strict=True):
        site.weight.add_((shift_KV.T if site.transposed else shift_KV).to(site.weight.dtype))


def _pile_up(weight: Tensor, gradient: Tensor) -> None:
    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)


WAYS: dict[str, Callable[[StableEdit, int], None]] = {"plain": plain_step, "ours": our_step}


def one_way(args: argparse.Namespace) -> None:
    """The child process: prints its figures and a checksum of the weights as JSON."""
    device = start(args)
    editor, rows = set_up(args, device)
    before = [site.weight.clone().cpu() if args.quick else None for site in editor.sites]
    memory = ExtraMemory(device)
    torch.manual_seed(1)
    with torch.no_grad():
        WAYS[args.way](editor, rows)
    found: dict[str, Any] = {"extra_mib": memory.peak(), "weights_mib": memory.before}
    if args.quick:
        found["shift_norms"] = [
            (site.weight.cpu().double() - old.double()).norm().item()
            for site, old in zip(editor.sites, before, strict=True)
        ]
    print(json.dumps(found))


def in_process(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--way", way, "--device", args.device]
    for name in ("sites", "rows", "d_k", "d_v", "dtype", "threads"):
        value = getattr(args, name)
        command += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    command += ["--quick"] if args.quick else []
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True, timeout=1800)
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, then one JSON line."""
    arguments = parser("memory", __doc__, rounds=1)
    arguments.add_argument("--sites", type=int, default=4)
    arguments.add_argument("--rows", type=int, default=500, help="rows a site, in ten micro-batches (default 500)")
    arguments.add_argument("--d-k", type=int, default=14336)
    arguments.add_argument("--d-v", type=int, default=4096)
    arguments.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of the weights (default bfloat16)")
    arguments.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = arguments.parse_args(argv)
    if args.quick:
        args.sites, args.rows, args.d_k, args.d_v, args.dtype = 2, 40, 512, 128, "float32"
    if args.way:
        one_way(args)
        return {}
    device = start(args)
    found = {way: in_process(way, args) for way in WAYS}
    show(
        ("way", "extra MiB", "before MiB"), [(way, row["extra_mib"], row["weights_mib"]) for way, row in found.items()]
    )
    share = found["ours"]["extra_mib"] / max(found["plain"]["extra_mib"], 1e-9)
    size = {name: getattr(args, name) for name in ("sites", "rows", "d_k", "d_v", "dtype")}
    targets = {} if args.quick else {"share of the plain way": at_most(share, 1 / 3)}
    return finish("memory", args, device, {**size, "ways": found, "share": share}, targets)


if __name__ == "__main__":
    main()
