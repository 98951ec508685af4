"""The ridge system of one site, N x N (ours) against d_k x d_k (plain, in float32): python -m benchmarks.ridge."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import nn

from benchmarks import synthetic
from benchmarks.plain import plain_ridge
from benchmarks.timing import Found, at_least, at_most, command, flat, race, relative_error
from editor.ridge import solve_ridge
from editor.sites import EditSite

ALPHA = 10.0
LARGE = 8192
"""d_k from which a plain solve takes half a minute: without --full only N = 500 is run there, once."""
SHOWN = ["d_k", "d_v", "rows", "plain_s", "ours_s", "written_s", "ratio", "ratio_cholesky", "ratio_written"]


def case(d_k: int, d_v: int, rows: int, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Times, ratios and errors of one size; errors against the N x N solution in float64."""
    keys_NK, targets_NV = synthetic.rows(rows, d_k, synthetic.KEY_NORM, device), torch.randn(rows, d_v, device=device)
    site = EditSite("site", nn.Linear(d_k, d_v, bias=False, device=device).requires_grad_(False))

    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain_ridge(keys_NK, targets_NV, ALPHA),
        "cholesky": lambda: plain_ridge(keys_NK, targets_NV, ALPHA, cholesky=True),
        "ours": lambda: solve_ridge(keys_NK, targets_NV, ALPHA),
        "written": lambda: site.add(solve_ridge(keys_NK, targets_NV, ALPHA)),
    }
    rounds, warm_up = (1, 0) if d_k >= LARGE and not args.full else (args.rounds, 1)
    times, shifts = race(ways, rounds, device, warm_up=warm_up)
    seconds = times["s"]
    added = race({"add": lambda: site.weight.add_(shifts["plain"].T)}, rounds, device)[0]["s"]["add"]
    keys, targets = keys_NK.double(), targets_NV.double()
    exact = keys.T @ torch.linalg.solve(keys @ keys.T + ALPHA * torch.eye(rows, device=device), targets)
    whole = plain_ridge(keys, targets, ALPHA) if d_k <= 4096 else None
    error, plain_error = relative_error(shifts["ours"].matrix(), exact), relative_error(shifts["plain"], exact)
    return {
        **{"d_k": d_k, "d_v": d_v, "rows": rows, **flat(times)},
        **{"error": error, "plain_error": plain_error, "error_share": error / plain_error},
        "float64_difference": relative_error(whole, exact) if whole is not None else None,
        "ratio": seconds["plain"] / seconds["ours"],
        "ratio_cholesky": seconds["cholesky"] / seconds["ours"],
        "ratio_written": (seconds["plain"] + added) / seconds["written"],
    }


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Every size: d_k x d_v and N."""
    sizes = [tuple(map(int, size.split("x"))) for size in args.sizes or ("1536x576", "4096x4096", "14336x4096")]
    cases = [(d_k, d_v, rows) for d_k, d_v in sizes for rows in args.rows]
    every = args.full or args.sizes
    cases = [(96, 32, 12), (24, 16, 40)] if args.quick else [c for c in cases if every or c[0] < LARGE or c[2] == 500]
    table = pd.DataFrame([case(*size, args, device) for size in cases])
    targets = {}
    for row in table.query("d_k == 14336 and d_v == 4096 and rows == 500").to_dict("records"):
        targets = {"times faster": at_least(row["ratio"], 40), "share of error": at_most(row["error_share"], 0.1)}
    return Found(table, [*SHOWN, "plain_error", "error", "float64_difference"], {"alpha": ALPHA}, targets)


main = command(
    "ridge",
    __doc__,
    measure,
    rounds=3,
    sizes={"nargs": "+", "metavar": "KxV", "help": "d_k x d_v, as 1536x576 (default: three)"},
    rows={"nargs": "+", "type": int, "default": [100, 500, 2000], "help": "N (default 100 500 2000)"},
    full={"action": "store_true", "help": "every N at 14336x4096 too, and every round"},
)

if __name__ == "__main__":
    main()
