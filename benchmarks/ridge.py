"""The ridge system of one site, N x N against d_k x d_k: python -m benchmarks.ridge.

Plain is what the published program does, in float32: K^T K + alpha I and torch.linalg.solve (an LU factorization);
a Cholesky factorization of the same matrix stands beside it. Ours is editor.ridge.solve_ridge, whose result is a
pair of factors; "written" adds the shift to a weight as well (blocks of a shift with EditSite.add, the whole matrix
in the plain way). Errors are relative Frobenius distances to the N x N solution in float64; where d_k is at most
4096 that one is itself held against a d_k x d_k solution in float64.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks import synthetic
from benchmarks.plain import plain_ridge
from benchmarks.timing import Found, at_least, at_most, command, flat, race, relative_error
from editor.ridge import solve_ridge
from editor.sites import EditSite

ALPHA = 10.0
SIZES = ["1536x576", "4096x4096", "14336x4096"]
LARGE = 8192
"""d_k from which a plain solve takes half a minute: without --full only N = 500 is run there, once."""
SHOWN = ("d_k", "d_v", "rows", "plain_s", "ours_s", "written_s", "ratio", "ratio_cholesky", "ratio_written")


def plain_cholesky(keys_NK: Tensor, targets_NV: Tensor) -> Tensor:
    """S [K, V] through the d_k x d_k system, making use of its symmetry."""
    gram_KK = keys_NK.T @ keys_NK
    gram_KK.diagonal().add_(ALPHA)
    return torch.cholesky_solve(keys_NK.T @ targets_NV, torch.linalg.cholesky(gram_KK))


def exact(keys_NK: Tensor, targets_NV: Tensor) -> Tensor:
    """S [K, V] in float64 through the N x N system."""
    keys, targets = keys_NK.double(), targets_NV.double()
    gram_NN = keys @ keys.T
    gram_NN.diagonal().add_(ALPHA)
    return keys.T @ torch.linalg.solve(gram_NN, targets)


def case(d_k: int, d_v: int, rows: int, rounds: int, warm_up: int, device: torch.device) -> dict[str, Any]:
    """Times, ratios and errors of one size."""
    keys_NK, targets_NV = synthetic.keys(rows, d_k, device), torch.randn(rows, d_v, device=device)
    site = EditSite("site", nn.Linear(d_k, d_v, bias=False, device=device).requires_grad_(False))
    found: dict[str, Any] = {}
    ways = {
        "plain": lambda: found.update(plain=plain_ridge(keys_NK, targets_NV, ALPHA)),
        "cholesky": lambda: found.update(cholesky=plain_cholesky(keys_NK, targets_NV)),
        "ours": lambda: found.update(ours=solve_ridge(keys_NK, targets_NV, ALPHA)),
        "written": lambda: site.add(solve_ridge(keys_NK, targets_NV, ALPHA)),
    }
    times = race(ways, rounds, device, warm_up=warm_up)
    seconds, added = times["s"], race({"add": lambda: site.weight.add_(found["plain"].T)}, rounds, device)["s"]["add"]
    exact_KV = exact(keys_NK, targets_NV)
    whole = plain_ridge(keys_NK.double(), targets_NV.double(), ALPHA) if d_k <= 4096 else None
    error, plain_error = relative_error(found["ours"].matrix(), exact_KV), relative_error(found["plain"], exact_KV)
    return {
        **{"d_k": d_k, "d_v": d_v, "rows": rows, **flat(times)},
        **{"error": error, "plain_error": plain_error, "error_share": error / plain_error},
        "float64_difference": relative_error(whole, exact_KV) if whole is not None else None,
        "ratio": seconds["plain"] / seconds["ours"],
        "ratio_cholesky": seconds["cholesky"] / seconds["ours"],
        "ratio_written": (seconds["plain"] + added) / seconds["written"],
    }


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Every size: d_k x d_v and N."""
    sizes = [tuple(map(int, size.split("x"))) for size in args.sizes or SIZES]
    cases = [(d_k, d_v, rows) for d_k, d_v in sizes for rows in args.rows]
    cases = [one for one in cases if args.full or one[0] < LARGE or one[2] == 500 or args.sizes]
    found = []
    for d_k, d_v, rows in [(96, 32, 12), (24, 16, 40)] if args.quick else cases:
        once = d_k >= LARGE and not args.full
        found.append(case(d_k, d_v, rows, 1 if once else args.rounds, int(not once), device))
    table = pd.DataFrame(found)
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
