"""What a step of four sites pays for the symmetric root of the value covariance: python -m benchmarks.whitening.

Plain, as published: per site a decomposition, the whole root matrix, and its product with the site's rows. Ours:
nets.RunningStatistics.inverse_root once for the shape, then each site's rows times the eigenpairs above the floor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks import synthetic
from benchmarks.plain import PlainStatistics
from benchmarks.timing import at_most, finish, parser, race, ratio, relative_error, show, start
from nets import Normalizer, RunningStatistics, inverse_root

SITES = 4
ROWS = 500
SIZES = [576, 4096]
TARGET = 4096


def plain(statistics: RunningStatistics, gradients: list[Tensor]) -> list[Tensor]:
    """Whitened rows of every site, a decomposition for each."""
    frozen = PlainStatistics.of(statistics)
    roots = (frozen.root(synthetic.FLOOR, relative=False) for _ in gradients)
    return [
        (rows_NV - frozen.mean_D[statistics.d_k :]) @ root_VV for rows_NV, root_VV in zip(gradients, roots, strict=True)
    ]


def ours(statistics: RunningStatistics, gradients: list[Tensor]) -> list[Tensor]:
    """Whitened rows of every site, one decomposition."""
    normalizer = Normalizer(statistics, statistics.inverse_root(synthetic.FLOOR, relative=False))
    return [normalizer.gradients(gradients_NV) for gradients_NV in gradients]


def difference(statistics: RunningStatistics, gradients_NV: Tensor) -> float:
    """Relative distance of the two roots' products with the rows, in float64."""
    assert statistics.scatter_VV is not None
    frozen = PlainStatistics(statistics.n, statistics.mean_D, statistics.m2_D, statistics.scatter_VV)
    covariance_VV = statistics.scatter_VV / (statistics.n - statistics.d_v - 1)
    rows_NV = gradients_NV.double()
    expected_NV = rows_NV @ frozen.root(synthetic.FLOOR, relative=False)
    return relative_error(inverse_root(covariance_VV, synthetic.FLOOR).apply(rows_NV), expected_NV)


def measure(d_v: int, rows: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Times and differences at one size."""
    statistics = synthetic.statistics(1, d_v, device)
    gradients = [synthetic.gradients(rows, d_v, device) for _ in range(SITES)]
    found: dict[str, list[Tensor]] = {}
    runs = {
        "plain": lambda: found.update(plain=plain(statistics, gradients)),
        "ours": lambda: found.update(ours=ours(statistics, gradients)),
    }
    times = race(runs, rounds=rounds, device=device, warm_up=int(d_v < TARGET))
    return {
        "d_v": d_v,
        "sites": SITES,
        "rows": rows,
        **{name: timed.summary() for name, timed in times.items()},
        "share": 1 / ratio(times["plain"], times["ours"]),
        "float32_difference": max(relative_error(*pair) for pair in zip(found["ours"], found["plain"], strict=True)),
        "float64_difference": difference(statistics, gradients[0]),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, then one JSON line."""
    arguments = parser("whitening", __doc__, rounds=3)
    arguments.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="d_v (default 576 4096)")
    args = arguments.parse_args(argv)
    device = start(args)
    sizes, per_site = ([24, 48], 40) if args.quick else (args.sizes, ROWS)
    found = [measure(d_v, per_site, args.rounds, device) for d_v in sizes]
    header = ("d_v", "plain s", "ours s", "share", "differs float32", "differs float64")
    columns = ("share", "float32_difference", "float64_difference")
    rows = [(str(x["d_v"]), x["plain"]["s"], x["ours"]["s"], *(x[column] for column in columns)) for x in found]
    show(header, rows)
    shares = [row["share"] for row in found if row["d_v"] == TARGET]
    targets = {"share of the plain way": at_most(shares[0], 0.25)} if shares else {}
    return finish("whitening", args, device, {"cases": found}, targets)


if __name__ == "__main__":
    main()
