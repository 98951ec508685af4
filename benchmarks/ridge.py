"""The ridge system of one site, N x N (ours) against d_k x d_k (plain, in float32): python -m benchmarks.ridge."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

from benchmarks.inputs import KEY_NORM, random_rows
from benchmarks.plain import plain_ridge
from benchmarks.timing import Found, command, race, relative_error
from editor.ridge import solve_ridge
from editor.sites import EditSite

ALPHA = 10.0
CASES = [(*size, rows) for size in ((1536, 576), (4096, 4096)) for rows in (100, 500, 2000)] + [(14336, 4096, 500)]
QUICK = [(24, 16, 40), (96, 32, 12)]
"""d_k, d_v, N; the target is the last one's."""


def case(d_k: int, d_v: int, rows: int, rounds: int, device: torch.device) -> pd.DataFrame:
    """Times of one size, and errors against the N x N solution in float64."""
    keys_NK, targets_NV = random_rows(rows, d_k, KEY_NORM, device), torch.randn(rows, d_v, device=device)
    site = EditSite("site", nn.Linear(d_k, d_v, bias=False, device=device).requires_grad_(False))
    ways: dict[str, Callable[[], Any]] = {
        "plain": partial(plain_ridge, keys_NK, targets_NV, ALPHA),
        "ours": partial(solve_ridge, keys_NK, targets_NV, ALPHA),
        "ours, written": lambda: site.add(solve_ridge(keys_NK, targets_NV, ALPHA)),
    }
    times, shifts = race(ways, rounds)
    keys, targets = keys_NK.double(), targets_NV.double()
    exact = keys.T @ torch.linalg.solve(keys @ keys.T + ALPHA * torch.eye(rows, device=device), targets)
    found = {"plain": shifts["plain"], "ours": shifts["ours"].matrix()}
    return times.assign(error=pd.Series({way: relative_error(shift, exact) for way, shift in found.items()}))


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Every size."""
    tables = {size: case(*size, args.rounds, device) for size in (QUICK if args.quick else CASES)}
    *_, last = tables.values()
    share = last["error"]["ours"] / last["error"]["plain"]
    figures = {"times_faster": last["times_faster"]["ours"], "share_of_error": share}
    return pd.concat(tables, names=["d_k", "d_v", "rows"]), figures


main = command(measure, rounds=3, times_faster=("at least", 40.0), share_of_error=("at most", 0.1))

if __name__ == "__main__":
    main()
