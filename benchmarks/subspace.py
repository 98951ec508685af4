"""Whitening by a search for the eigenpairs above the floor, against a whole decomposition: one step, one shape.

The covariance has eigenvalues lambda_k = lambda_1 exp(-1.65 (k^0.2 - 1)), k = 1 .. d_v: those of the embedded model's
value gradients (facts, statistics of 4,088 rows at down_proj of layers 24-27, d_v 576, and of 9,025 at gate_proj of
layers 15-19, d_v 1536; by rank both are the same to a fifth up to rank 128). Then rows of that distribution are added.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from benchmarks.inputs import FLOOR
from benchmarks.timing import Found, command, race, relative_error
from editor.subspace import subspace_root
from nets import InverseRoot, inverse_root

LARGEST = {"down_proj": 5.6e-6, "gate_proj": 5.0e-5}
"""lambda_1 as measured at those sites: 35 and 435 eigenvalues above the published floor, at any d_v."""
SITES = {"choices": sorted(LARGEST), "default": "down_proj", "help": "whose largest eigenvalue (default down_proj)"}


def covariance(values_V: Tensor, mirrors: list[Tensor]) -> Tensor:
    """A covariance [V, V] of these eigenvalues whose vectors are mirrored unit vectors."""
    found_VV = torch.diag(values_V)
    for mirror_V in mirrors:
        for _ in range(2):
            found_VV = found_VV.addr_(mirror_V, mirror_V @ found_VV, alpha=-2).T
    return found_VV.contiguous()


def random_rows(count: int, values_V: Tensor, mirrors: list[Tensor]) -> Tensor:
    """Rows [N, V] of that covariance."""
    rows_NV = torch.randn(count, len(values_V), device=values_V.device) * values_V.sqrt()
    for mirror_V in mirrors:
        rows_NV.addr_(rows_NV @ mirror_V, mirror_V, alpha=-2)
    return rows_NV


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Times of both ways, the search going on from the step before, and how far apart whitened rows are."""
    d_v, count = (512, 12) if args.quick else (14336, 350)
    ranks_V = torch.arange(1.0, d_v + 1, device=device)
    values_V = LARGEST[args.site] * torch.exp(-1.65 * (ranks_V**0.2 - 1))
    mirrors = [torch.nn.functional.normalize(torch.randn(d_v, device=device), dim=0) for _ in range(3)]
    before_VV, rows_NV = covariance(values_V, mirrors), random_rows(count, values_V, mirrors)
    begun = time.process_time()
    _, basis_VC = subspace_root(before_VV, FLOOR, rows=count)
    fresh_s, share = time.process_time() - begun, count / (count + 2 * d_v)
    now_VV = before_VV.mul_(1 - share).addmm_(rows_NV.T, rows_NV, alpha=share / count)
    cpu_s: dict[str, float] = {}

    def timed(way: str, root: Callable[[], InverseRoot]) -> InverseRoot:
        begun = time.process_time()
        found = root()
        cpu_s[way] = time.process_time() - begun
        return found

    ways = {
        "eigh": lambda: timed("eigh", lambda: inverse_root(now_VV, FLOOR)),
        "subspace": lambda: timed("subspace", lambda: subspace_root(now_VV, FLOOR, basis_VC=basis_VC, rows=count)[0]),
    }
    times, found = race(ways, args.rounds, warm_up=0)
    whitened = {way: root.apply(rows_NV) for way, root in found.items()}
    figures = {"times_faster": times["times_faster"]["subspace"], "cpu_times_faster": cpu_s["eigh"] / cpu_s["subspace"]}
    figures |= {"difference": relative_error(whitened["subspace"], whitened["eigh"]), "fresh_cpu_s": fresh_s}
    above = int((found["eigh"].gains_R > 0).sum())
    sizes = {"d_v": d_v, "rows": count, "above": above, "columns": found["subspace"].vectors_VR.shape[1]}
    return times.assign(cpu_s=pd.Series(cpu_s)), {**sizes, **figures}


main = command(
    measure, options={"--site": SITES}, times_faster=("at least", 15), difference=("at most", 1e-5)
)  # fmt: skip

if __name__ == "__main__":
    main()
