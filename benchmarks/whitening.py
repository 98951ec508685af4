"""A decomposition per shape and eigenpairs above the floor, against a root matrix per site: benchmarks.whitening."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from benchmarks.inputs import FLOOR, GRADIENT_NORM, random_rows, random_statistics
from benchmarks.plain import plain_root
from benchmarks.timing import Found, command, race, relative_error
from nets import Normalizer

SITES, ROWS = 4, 500


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Times of both ways for some sites of one shape, and how far our rows are from the plain way's."""
    d_v = 48 if args.quick else 4096
    statistics = random_statistics(1, d_v, device)
    gradients = [random_rows(ROWS, d_v, GRADIENT_NORM, device) for _ in range(SITES)]

    def plain() -> list[Tensor]:
        return [(rows_NV - statistics.mean_D[1:].float()) @ plain_root(statistics, FLOOR) for rows_NV in gradients]

    def ours() -> list[Tensor]:
        normalizer = Normalizer(statistics, statistics.inverse_root(FLOOR, relative=False))
        return [normalizer.gradients(gradients_NV) for gradients_NV in gradients]

    times, found = race({"plain": plain, "ours": ours}, args.rounds)
    difference = max(map(relative_error, found["ours"], found["plain"]))
    share = times["s"]["ours"] / times["s"]["plain"]
    return times, {"d_v": d_v, "sites": SITES, "rows": ROWS, "difference": difference, "share_of_plain": share}


main = command(measure, rounds=3, share_of_plain=("at most", 0.25))

if __name__ == "__main__":
    main()
