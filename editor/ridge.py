"""The ridge-regularized update, and shifts as products of thin factors.

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nets import NumericsError


@dataclass(frozen=True)
class Shift:
    """An update S = left_NK^T right_NV of one site; left is None where right is S itself.

    With N rows far fewer than d_k the factors are a few per cent of the matrix: norms and
    cosines work on them.
    """

    left_NK: Tensor | None
    right_NV: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that the factors take."""
        return self.right_NV.nbytes + (0 if self.left_NK is None else self.left_NK.nbytes)

    def matrix(self) -> Tensor:
        """S, [d_k, d_v]."""
        return self.right_NV if self.left_NK is None else self.left_NK.T @ self.right_NV

    def contiguous(self) -> Shift:
        """The same shift in row-major memory; a Cholesky solve leaves its result column-major."""
        left_NK = None if self.left_NK is None else self.left_NK.contiguous()
        return Shift(left_NK, self.right_NV.contiguous())

    def beside(self, device: torch.device) -> Shift:
        """The thin factors on a device; a whole matrix stays where it is, to be moved block by block."""
        return self if self.left_NK is None else Shift(self.left_NK.to(device), self.right_NV.to(device))

    def rows(self, cut: slice) -> Tensor:
        """S[cut], [rows, d_v]: a block at a time, so that the whole need never exist."""
        return self.right_NV[cut] if self.left_NK is None else self.left_NK[:, cut].T @ self.right_NV

    def columns(self, cut: slice) -> Tensor:
        """S[:, cut] transposed, [columns, d_k]."""
        right_NC = self.right_NV[:, cut]
        return right_NC.T if self.left_NK is None else right_NC.T @ self.left_NK

    def inner(self, other: Shift) -> Tensor:
        """<S, S'> in float64, a 0-dim tensor."""
        if self.left_NK is None or other.left_NK is None:
            return (self.matrix().double() * other.matrix().double()).sum()
        keys_NN = self.left_NK.double() @ other.left_NK.double().T
        values_NN = self.right_NV.double() @ other.right_NV.double().T
        return (keys_NN * values_NN).sum()

    def is_finite(self) -> Tensor:
        """Whether every factor is finite, a 0-dim bool tensor."""
        finite = self.right_NV.isfinite().all()
        return finite if self.left_NK is None else finite & self.left_NK.isfinite().all()

    @cached_property
    def norm(self) -> Tensor:
        """Frobenius norm in float64, a 0-dim tensor; computed once, as it is asked for again by the next step."""
        return self.inner(self).clamp(min=0).sqrt()


def target_rows(keys_NK: Tensor, gradients_NV: Tensor, lr: float) -> Tensor:
    """V = -lr |k|^2 g per row, of normalized keys and gradients (docs/design.md, 2.5)."""
    return -lr * keys_NK.square().sum(1, keepdim=True) * gradients_NV


def solve_ridge(
    keys_NK: Tensor,
    targets_NV: Tensor,
    alpha: float | Tensor,
    retries: Counter[str] | None = None,
    unseen: list[Tensor] | None = None,
) -> Shift:
    """S = (K^T K + alpha I)^(-1) K^T V through the smaller of the two systems.

    For N < d_k the same S is K^T (K K^T + alpha I)^(-1) V. The Gram matrix and its Cholesky
    factor are float64: the system is ill-conditioned when alpha is far below |K|^2, and N is small.
    `unseen` as for solve_shifted.
    """
    rows, d_k = keys_NK.shape
    keys, targets = keys_NK.double(), targets_NV.double()
    if rows < d_k:
        return Shift(keys_NK, solve_shifted(keys @ keys.T, alpha, targets, retries, unseen).to(targets_NV.dtype))
    return Shift(None, solve_shifted(keys.T @ keys, alpha, keys.T @ targets, retries, unseen).to(targets_NV.dtype))


def solve_shifted(
    gram_MM: Tensor,
    alpha: float | Tensor,
    right_MV: Tensor,
    retries: Counter[str] | None = None,
    unseen: list[Tensor] | None = None,
) -> Tensor:
    """(G + alpha I)^(-1) R for symmetric positive semi-definite G, in float64.

    A Cholesky factorization that fails is tried again with 1e-12, 1e-10 and 1e-8 of the mean
    diagonal added; every retry is counted. To know that it failed makes the host wait for a GPU:
    with a list `unseen` the factorization's verdict (0 for good) is appended there and not looked at.

    Raises:
        NumericsError: all of them failed.
    """
    identity_MM = torch.eye(len(gram_MM), dtype=gram_MM.dtype, device=gram_MM.device)
    system_MM = gram_MM + alpha * identity_MM
    for jitter in (0.0, 1e-12, 1e-10, 1e-8):
        if jitter and retries is not None:
            retries[f"Cholesky with jitter {jitter:.0e}"] += 1
        trial_MM = system_MM + jitter * system_MM.diagonal().mean() * identity_MM if jitter else system_MM
        factor_MM, info = torch.linalg.cholesky_ex(trial_MM)
        if unseen is not None:
            unseen.append(info)
        if unseen is not None or info.item() == 0:
            return torch.cholesky_solve(right_MV, factor_MM)
    raise NumericsError("the ridge system is not positive definite, with jitter 1e-8 of its diagonal neither")


def solve_gradient(
    keys_NK: Tensor, gradient_KV: Tensor, alpha: float | Tensor, shift: Shift, retries: Counter[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients through solve_ridge: (K M, <M, S>) with M = (K^T K + alpha I)^(-1) G.

    d(loss)/dV is K M and d(loss)/d(alpha) is -<M, S>. In the smaller system K M is
    (K K^T + alpha I)^(-1) K G, and with S = K^T X the product <M, S> is <K M, X>: M itself
    never has to exist.

    Returns:
        gradient of the target rows [N, d_v] in their dtype, and the product as a 0-dim float64 tensor.
    """
    rows, d_k = keys_NK.shape
    keys, gradient = keys_NK.double(), gradient_KV.double()
    if rows < d_k:
        targets_gradient = solve_shifted(keys @ keys.T, alpha, keys @ gradient, retries)
        product = (targets_gradient * shift.right_NV.double()).sum()
    else:
        m_KV = solve_shifted(keys.T @ keys, alpha, gradient, retries)
        targets_gradient = keys @ m_KV
        product = (m_KV * shift.matrix().double()).sum()
    return targets_gradient.to(keys_NK.dtype), product


@dataclass(frozen=True, slots=True)
class SiteRecord:
    """One site in one step: norm of its shift, cosine to the last step's, share of updates lost to rounding."""

    shift_norm: float
    cosine: float | None
    lost_share: float


def site_records(shifts: Sequence[Shift], before: Sequence[Shift | None], lost: Sequence[Tensor]) -> list[SiteRecord]:
    """What a step did to each site, read by the host at once; `before` are the last step's shifts, `lost` shares."""
    measured = []
    for shift, previous, share in zip(shifts, before, lost, strict=True):
        product = shift.inner(previous) if previous is not None else torch.zeros_like(share)
        norm = previous.norm if previous is not None else torch.zeros_like(share)
        measured.append(torch.stack([x.double() for x in (shift.norm, product, norm, share)]))
    return [
        SiteRecord(norm, None if previous is None else cosine(product, norm * other), share)
        for previous, (norm, product, other, share) in zip(before, torch.stack(measured).tolist(), strict=True)
    ]


def cosine(inner: float, norms: float) -> float:
    """Cosine of two shifts from their inner product and the product of their norms; 0 if one of them is zero."""
    return inner / norms if norms > 0 else 0.0
