"""The ridge system of one site, N x N against d_k x d_k: python -m benchmarks.ridge.

Plain is what the published program does, in float32: K^T K + alpha I and torch.linalg.solve (an LU factorization);
a Cholesky factorization of the same matrix stands beside it. Ours is editor.ridge.solve_ridge, whose result is a
pair of factors; "written" adds the shift to a weight as well (blocks of a shift with EditSite.add, the whole matrix
in the plain way). Errors are relative Frobenius distances to the N x N solution in float64; where d_k is at most
4096 that one is itself held against a d_k x d_k solution in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import synthetic
from benchmarks.plain import plain_ridge
from benchmarks.timing import at_least, at_most, finish, parser, race, ratio, relative_error, show, start
from editor.ridge import solve_ridge
from editor.sites import EditSite

ALPHA = 10.0
SIZES = [(1536, 576), (4096, 4096), (14336, 4096)]
ROWS = [100, 500, 2000]
TARGET = (14336, 4096, 500)
LARGE = 8192
"""d_k from which a plain solve takes half a minute: without --full only N = 500 is run there, once."""


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


def measure(d_k: int, d_v: int, rows: int, rounds: int, warm_up: int, device: torch.device) -> dict[str, Any]:
    """Times, ratios and errors of one size."""
    keys_NK = synthetic.keys(rows, d_k, device)
    targets_NV = torch.randn(rows, d_v, device=device)
    linear = nn.Linear(d_k, d_v, bias=False, device=device).requires_grad_(False)
    site = EditSite("site", linear)
    found: dict[str, Any] = {}

    def keep(name: str, solve: Callable[[Tensor, Tensor], Any]) -> Callable[[], None]:
        return lambda: found.update({name: solve(keys_NK, targets_NV)})

    runs = {
        "plain": keep("plain", lambda k, v: plain_ridge(k, v, ALPHA)),
        "cholesky": keep("cholesky", plain_cholesky),
        "ours": keep("ours", lambda k, v: solve_ridge(k, v, ALPHA)),
        "ours written": lambda: site.add(solve_ridge(keys_NK, targets_NV, ALPHA)),
    }
    times = race(runs, rounds=rounds, device=device, warm_up=warm_up)
    add = race({"add": lambda: linear.weight.add_(found["plain"].T)}, rounds=rounds, device=device)["add"]
    exact_KV = exact(keys_NK, targets_NV)
    whole = plain_ridge(keys_NK.double(), targets_NV.double(), ALPHA) if d_k <= 4096 else None
    errors = {
        "plain_error": relative_error(found["plain"], exact_KV),
        "cholesky_error": relative_error(found["cholesky"], exact_KV),
        "error": relative_error(found["ours"].matrix(), exact_KV),
        "float64_difference": relative_error(whole, exact_KV) if whole is not None else None,
    }
    written = times["ours written"]
    return {
        "d_k": d_k, "d_v": d_v, "rows": rows, **errors,
        **{name.replace(" ", "_"): timed.summary() for name, timed in times.items()},
        "ratio": ratio(times["plain"], times["ours"]),
        "ratio_cholesky": ratio(times["cholesky"], times["ours"]),
        "ratio_written": (times["plain"].median + add.median) / written.median,
        "error_share": errors["error"] / errors["plain_error"],
    }  # fmt: skip


def cases(args: argparse.Namespace) -> list[tuple[int, int, int]]:
    """The sizes to run."""
    if args.quick:
        return [(96, 32, 12), (24, 16, 40)]
    sizes = [tuple(map(int, size.split("x"))) for size in args.sizes] if args.sizes else SIZES
    found = [(d_k, d_v, rows) for d_k, d_v in sizes for rows in args.rows]
    return [case for case in found if args.full or case[0] < LARGE or case[2] == 500 or args.sizes]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, then one JSON line."""
    arguments = parser("ridge", __doc__, rounds=3)
    arguments.add_argument("--sizes", nargs="+", metavar="KxV", help="d_k x d_v, as 1536x576 (default: three)")
    arguments.add_argument("--rows", nargs="+", type=int, default=ROWS, help="N (default 100 500 2000)")
    arguments.add_argument("--full", action="store_true", help="every N at 14336x4096 too, and every round")
    args = arguments.parse_args(argv)
    device = start(args)
    found = []
    for d_k, d_v, rows in cases(args):
        once = d_k >= LARGE and not args.full
        found.append(measure(d_k, d_v, rows, 1 if once else args.rounds, 0 if once else 1, device))
    columns = ("ratio", "ratio_cholesky", "ratio_written", "plain_error", "error", "float64_difference")
    header = ("d_k x d_v", "N", "plain s", "ours s", "written s", *columns)
    table = []
    for row in found:
        seconds = (row[way]["s"] for way in ("plain", "ours", "ours_written"))
        table.append((f"{row['d_k']}x{row['d_v']}", row["rows"], *seconds, *(row[column] for column in columns)))
    show(header, table)
    targets = {}
    for row in found:
        if (row["d_k"], row["d_v"], row["rows"]) == TARGET:
            targets = {"times faster": at_least(row["ratio"], 40), "share of error": at_most(row["error_share"], 0.1)}
    return finish("ridge", args, device, {"alpha": ALPHA, "cases": found}, targets)


if __name__ == "__main__":
    main()
