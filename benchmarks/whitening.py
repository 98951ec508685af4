"""A decomposition per shape and eigenpairs above the floor, against a root matrix per site: benchmarks.whitening."""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks import synthetic
from benchmarks.plain import PlainStatistics
from benchmarks.timing import Found, at_most, command, flat, race, relative_error
from nets import Normalizer, inverse_root

SITES, TARGET = 4, 4096


def case(d_v: int, rows: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Times and differences at one size; the float64 difference is of the two roots' products with a site's rows."""
    statistics = synthetic.statistics(1, d_v, device)
    gradients = [synthetic.rows(rows, d_v, synthetic.GRADIENT_NORM, device) for _ in range(SITES)]

    def plain() -> list[Tensor]:
        frozen = PlainStatistics.of(statistics)
        return [(rows_NV - frozen.mean_D[1:]) @ frozen.root(synthetic.FLOOR) for rows_NV in gradients]

    def ours() -> list[Tensor]:
        normalizer = Normalizer(statistics, statistics.inverse_root(synthetic.FLOOR, relative=False))
        return [normalizer.gradients(gradients_NV) for gradients_NV in gradients]

    times, found = race({"plain": plain, "ours": ours}, rounds, device, warm_up=int(d_v < TARGET))
    exact, rows_NV = PlainStatistics.of(statistics, torch.float64), gradients[0].double()
    root = inverse_root(exact.scatter_VV / (exact.n - d_v - 1), synthetic.FLOOR)
    return {
        **{"d_v": d_v, "sites": SITES, "rows": rows, **flat(times)},
        "share": times["s"]["ours"] / times["s"]["plain"],
        "float32_difference": max(map(relative_error, found["ours"], found["plain"])),
        "float64_difference": relative_error(root.apply(rows_NV), rows_NV @ exact.root(synthetic.FLOOR)),
    }


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Every size."""
    sizes, rows = ([24, 48], 40) if args.quick else (args.sizes, 500)
    table = pd.DataFrame([case(d_v, rows, args.rounds, device) for d_v in sizes])
    shares = table["share"][table["d_v"] == TARGET]
    targets = {"share of the plain way": at_most(shares.iloc[0], 0.25)} if len(shares) else {}
    return Found(table, ["d_v", "plain_s", "ours_s", "share", "float32_difference", "float64_difference"], {}, targets)


sizes = {"nargs": "+", "type": int, "default": [576, TARGET], "help": "d_v (default 576 4096)"}
main = command("whitening", __doc__, measure, rounds=3, sizes=sizes)

if __name__ == "__main__":
    main()
