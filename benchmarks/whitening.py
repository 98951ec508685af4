"""What a step of four sites pays for the symmetric root of the value covariance: python -m benchmarks.whitening.

Plain, as published: per site a decomposition, the whole root matrix, and its product with the site's rows. Ours:
nets.RunningStatistics.inverse_root once for the shape, then each site's rows times the eigenpairs above the floor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks import synthetic
from benchmarks.timing import at_most, finish, parser, race, ratio, relative_error, show, start
from nets import Normalizer, RunningStatistics, inverse_root

SITES = 4
ROWS = 500
SIZES = [576, 4096]
TARGET = 4096


def plain_root(covariance_VV: Tensor) -> Tensor:
    """C^(-1/2) [V, V], eigenvalues raised to the floor."""
    values_V, vectors_VV = torch.linalg.eigh(covariance_VV)
    return (vectors_VV * values_V.clamp(min=synthetic.FLOOR).rsqrt()) @ vectors_VV.T


def plain(statistics: RunningStatistics, gradients: list[Tensor]) -> list[Tensor]:
    """Whitened rows of every site, a decomposition for each."""
    whitened = []
    for gradients_NV in gradients:
        covariance_VV = (statistics.scatter_VV / (statistics.n - statistics.d_v - 1)).float()
        mean_V = statistics.mean_D[statistics.d_k :].float()
        whitened.append((gradients_NV - mean_V) @ plain_root(covariance_VV))
    return whitened


def ours(statistics: RunningStatistics, gradients: list[Tensor]) -> list[Tensor]:
    """Whitened rows of every site, one decomposition."""
    normalizer = Normalizer(statistics, statistics.inverse_root(synthetic.FLOOR, relative=False))
    return [normalizer.gradients(gradients_NV) for gradients_NV in gradients]


def difference(statistics: RunningStatistics, gradients_NV: Tensor) -> float:
    """Relative distance of the two ways in float64."""
    assert statistics.scatter_VV is not None
    covariance_VV = statistics.scatter_VV / (statistics.n - statistics.d_v - 1)
    rows_NV = gradients_NV.double()
    return relative_error(
        inverse_root(covariance_VV, synthetic.FLOOR).apply(rows_NV), rows_NV @ plain_root(covariance_VV)
    )


def measure(d_v: int, rows: int, rounds: int, device: torch.device, *, double: bool) -> dict[str, Any]:
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
        "float64_difference": difference(statistics, gradients[0]) if double else None,
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, then one JSON line."""
    arguments = parser("whitening", __doc__, rounds=3)
    arguments.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="d_v (default 576 4096)")
    args = arguments.parse_args(argv)
    device = start(args)
    sizes, rows = ([24, 48], 40) if args.quick else (args.sizes, ROWS)
    found = [measure(d_v, rows, args.rounds, device, double=True) for d_v in sizes]
    show(
        ("d_v", "plain s", "ours s", "share", "differs float32", "differs float64"),
        [
            (str(row["d_v"]), row["plain"]["s"], row["ours"]["s"], row["share"])
            + (row["float32_difference"], row["float64_difference"])
            for row in found
        ],
    )
    targets = {"share of the plain way": at_most(row["share"], 0.25) for row in found if row["d_v"] == TARGET}
    return finish("whitening", args, device, {"cases": found}, targets)


if __name__ == "__main__":
    main()
