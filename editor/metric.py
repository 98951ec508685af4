"""How much a change of the weights would be felt: a Kronecker metric, and the least change in it.

Of site l, for a change D of its weight [d_k, d_v], tr(D^T A_l D B_l) with A_l the second moment of keys, B_l that of
value gradients (K-FAC, Martens and Grosse 2015). Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from editor.capture import Rows
from editor.ridge import Shift, solve_shifted
from nets import NumericsError

FLOOR = 1e-3
"""Of the mean eigenvalue, added to every eigenvalue: with fewer rows than coordinates there would be none to invert."""

PARTS = ("text", "edited", "values")

Factors = list[tuple[Tensor, Tensor]]
"""Lower Cholesky factors of A [K, K] and B [V, V] for every site."""


class Moments:
    """Sums of k k^T and g g^T over rows of one kind of text, for every site."""

    def __init__(self) -> None:
        self.rows = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def add(self, sites: Sequence[Rows]) -> None:
        """Add some rows of every site."""
        self.rows += len(sites[0].keys_NK)
        found = [(outer(rows.keys_NK), outer(rows.gradients_NV)) for rows in sites]
        if not self.keys:
            self.keys, self.values = (list(each) for each in zip(*found, strict=True))
            return
        for site, (key_KK, value_VV) in enumerate(found):
            self.keys[site] += key_KK
            self.values[site] += value_VV


def outer(rows_NX: Tensor) -> Tensor:
    """The sum of x x^T in float64."""
    rows = rows_NX.double()
    return rows.T @ rows


@dataclass(frozen=True, slots=True)
class Metric:
    """A = text + edited and B = values of every site, in float64."""

    text: list[Tensor]
    edited: list[Tensor]
    values: list[Tensor]
    renewals: int = 0

    @property
    def keys(self) -> list[Tensor]:
        """A of every site."""
        return [text_KK + edited_KK for text_KK, edited_KK in zip(self.text, self.edited, strict=True)]

    @classmethod
    def of(cls, kinds: Sequence[Moments], weight: float) -> Metric:
        """A metric in which every kind of text has the same share.

        A is `weight` times the mean over kinds of E[k k^T]; B is the mean of E[g g^T], the kinds brought to one trace.
        """
        keys, values = [], []
        for site in range(len(kinds[0].keys)):
            keys.append(floored(sum_of(kind.keys[site] / kind.rows for kind in kinds) * (weight / len(kinds))))
            found = [kind.values[site] / kind.rows for kind in kinds]
            traces = [value_VV.trace() for value_VV in found]
            mean = sum_of(traces) / len(kinds)
            shares = [value_VV * (mean / trace) for value_VV, trace in zip(found, traces, strict=True)]
            values.append(floored(sum_of(shares) / len(kinds)))
        return cls(keys, [torch.zeros_like(a_KK) for a_KK in keys], values)

    def factors(self, names: Sequence[str]) -> Factors:
        """Cholesky factors, O(K^3 + V^3) for every site.

        Raises:
            NumericsError: a matrix is not positive definite; `names` are the sites'.
        """
        found = [(cholesky(*pair), name) for *pair, name in zip(self.keys, self.values, names, strict=True)]
        bad = [name for (*_, info), name in found if info.any()]
        if bad:
            raise NumericsError(f"{bad[0]}: the metric of its text is not positive definite")
        return [(key_KK, value_VV) for (key_KK, value_VV, _), _ in found]

    def absorb(self, keys: Sequence[Tensor]) -> Metric:
        """The metric in which the keys [N, K] of every site, which were edited, are felt too."""
        edited = [a_KK + outer(k_NK) for a_KK, k_NK in zip(self.edited, keys, strict=True)]
        return replace(self, edited=edited)

    def renewed(self, fresh: Metric, share: float) -> Metric:
        """The metric in which text as it is felt now takes a share of the place of all text so far."""

        def mixed(old: Sequence[Tensor], new: Sequence[Tensor]) -> list[Tensor]:
            return [torch.lerp(*pair, share) for pair in zip(old, new, strict=True)]

        text, values = mixed(self.text, fresh.text), mixed(self.values, fresh.values)
        return replace(self, text=text, values=values, renewals=self.renewals + 1)

    def state_tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """All of it, by name of the site."""
        parts = {part: zip(names, getattr(self, part), strict=True) for part in PARTS}
        found = {f"metric/{part}/{name}": one for part, pairs in parts.items() for name, one in pairs}
        return found | {"metric/renewals": torch.tensor(self.renewals)}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], names: Sequence[str]) -> Metric | None:
        """What state_tensors gave; None where there was none yet."""
        if "metric/renewals" not in tensors:
            return None
        text, edited, values = ([tensors[f"metric/{part}/{name}"] for name in names] for part in PARTS)
        return cls(text, edited, values, int(tensors["metric/renewals"]))


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack([*tensors]).sum(0)


def floored(moment_XX: Tensor) -> Tensor:
    """A second moment with FLOOR of its mean eigenvalue added to each."""
    scale = moment_XX.trace() / len(moment_XX)
    return moment_XX + FLOOR * scale * torch.eye(len(moment_XX), dtype=moment_XX.dtype, device=moment_XX.device)


def cholesky(key_KK: Tensor, value_VV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both lower factors, and whether either failed (0-dim, not 0 if so)."""
    (a_KK, bad), (b_VV, worse) = torch.linalg.cholesky_ex(key_KK), torch.linalg.cholesky_ex(value_VV)
    return a_KK, b_VV, bad | worse


def least_change(
    keys: Sequence[Tensor],
    gradients: Sequence[Tensor],
    lacking_N: Tensor,
    factors: Factors,
    damping: float,
    retries: Counter[str] | None = None,
) -> list[Shift]:
    """The shifts of all sites that give each of N tokens what it lacks, the smallest in the metric.

    keys [N, K] and gradients [N, V] of every site are float64; so is lacking_N.
    """
    gram_NN = torch.zeros(len(lacking_N), len(lacking_N), dtype=torch.float64, device=lacking_N.device)
    for key_NK, gradient_NV, (a_KK, b_VV) in zip(keys, gradients, factors, strict=True):
        eased_KN, eased_VN = lower_solve(a_KK, key_NK.T), lower_solve(b_VV, gradient_NV.T)
        gram_NN += (eased_KN.T @ eased_KN) * (eased_VN.T @ eased_VN)
    scale_N = gram_NN.diagonal().sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    gram_NN /= scale_N.outer(scale_N)
    answer_N = solve_shifted(gram_NN, damping, (lacking_N / scale_N)[:, None], retries).squeeze(1) / scale_N
    shifts = []
    for key_NK, gradient_NV, (a_KK, b_VV) in zip(keys, gradients, factors, strict=True):
        left_NK = torch.cholesky_solve(key_NK.T, a_KK).T.float()
        right_NV = torch.cholesky_solve((-answer_N[:, None] * gradient_NV).T, b_VV).T.float()
        shifts.append(Shift(left_NK, right_NV))
    return shifts


def lower_solve(factor_XX: Tensor, right_XN: Tensor) -> Tensor:
    """L^-1 R."""
    return torch.linalg.solve_triangular(factor_XX, right_XN, upper=False)


def joined(first: Shift, second: Shift) -> Shift:
    """The sum of two shifts, as thin factors."""
    assert first.left_NK is not None and second.left_NK is not None
    return Shift(torch.cat([first.left_NK, second.left_NK]), torch.cat([first.right_NV, second.right_NV]))
