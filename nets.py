"""Running statistics of keys and value gradients, how rows are normalized with them, and the learned networks.

Shape suffixes: N rows, K = d_k, V = d_v, D = d_k + d_v.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from config.check import RunError

EPSILON = torch.finfo(torch.float32).eps


class RunningStatistics:
    """Mean, squared deviations and scatter of rows [k, g], pooled over the sites of one shape.

    Sums are kept in float64: after a million rows float32 would lose each new block's digits. `scatter_VV` (the
    covariance of values times n) is only kept where asked for (`covariance`).
    Follows docs/design.md, 2.3 (Chan's pairwise merge of moments).
    """

    def __init__(self, d_k: int, d_v: int, *, covariance: bool, device: torch.device) -> None:
        self.d_k, self.d_v = d_k, d_v
        self.n = 0
        self.mean_D = torch.zeros(d_k + d_v, dtype=torch.float64, device=device)
        self.m2_D = torch.zeros_like(self.mean_D)
        self.scatter_VV = torch.zeros(d_v, d_v, dtype=torch.float64, device=device) if covariance else None
        self.basis_VC: Tensor | None = None  # where the search for whitening's eigenpairs goes on (editor/subspace.py)
        self.added = 0  # rows of the last merge

    def add(self, keys_NK: Tensor, gradients_NV: Tensor) -> None:
        """Merge a block of rows: exact in any order up to rounding."""
        self.merge([(keys_NK, gradients_NV)])

    def merge(self, blocks: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Merge blocks of rows [N, K], [N, V] as if they were one; `blocks` is gone through twice.

        Once for the mean and once for the deviations from it; the [V, V] sum is read and written once.
        """
        rows, sum_D = 0, torch.zeros_like(self.mean_D)
        for keys_NK, gradients_NV in blocks:
            rows += len(keys_NK)
            sum_D += torch.cat([x.sum(0, dtype=torch.float64) for x in (keys_NK, gradients_NV)])
        if rows == 0:
            return
        mean_D = sum_D / rows
        m2_D, scatter_VV = self._deviations(blocks, mean_D)
        delta_D, between = mean_D - self.mean_D, self.n * rows / (self.n + rows)
        self.n, self.added = self.n + rows, rows
        self.mean_D += delta_D * (rows / self.n)
        self.m2_D += m2_D + between * delta_D.square()
        if self.scatter_VV is not None and scatter_VV is not None:
            self.scatter_VV += scatter_VV
            self.scatter_VV.addr_(delta_D[self.d_k :], delta_D[self.d_k :], alpha=between)

    def _deviations(self, blocks: Iterable[tuple[Tensor, Tensor]], mean_D: Tensor) -> tuple[Tensor, Tensor | None]:
        """Squared deviations [D] around a common mean, and value scatter [V, V] where it is kept."""
        m2_D, means = torch.zeros_like(self.m2_D), mean_D.float().split((self.d_k, self.d_v))
        scatter_VV = None if self.scatter_VV is None else torch.zeros_like(self.scatter_VV, dtype=torch.float32)
        for block in blocks:
            centered = [rows_NX - mean_X for rows_NX, mean_X in zip(block, means, strict=True)]
            if scatter_VV is not None:
                scatter_VV.addmm_(centered[1].T, centered[1])
            m2_D += torch.cat([x.square_().sum(0, dtype=torch.float64) for x in centered])
        return m2_D, scatter_VV

    @property
    def std_D(self) -> Tensor:
        """Sample standard deviation per coordinate, float64; 0 while there is a single row."""
        return (self.m2_D / max(self.n - 1, 1)).sqrt()

    @property
    def whitens(self) -> bool:
        """Whether there are rows enough to invert the value covariance."""
        return self.scatter_VV is not None and self.n > self.d_v + 1

    def inverse_root(self, floor: float, *, relative: bool, retries: Counter[str] | None = None) -> InverseRoot:
        """C~^(-1/2) of the value covariance C~ = C / (n - d_v - 1).

        Decomposed in float32 as the published program does: its rounding is part of its numbers
        (float64 moves a shift's norm by up to 1.4e-4 where n is little above d_v).
        """
        return inverse_root(self.covariance(), floor, relative=relative, retries=retries)

    def covariance(self) -> Tensor:
        """C~, [V, V] float32."""
        assert self.scatter_VV is not None and self.whitens
        return self.scatter_VV.float().div_(self.n - self.d_v - 1)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors; `var` and `cov_value` are sums, not yet divided (as published)."""
        kept = {"mean": self.mean_D, "var": self.m2_D, "cov_value": self.scatter_VV, "basis": self.basis_VC}
        return {"n": torch.tensor([self.n])} | {name: value for name, value in kept.items() if value is not None}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what state_dict gave.

        Raises:
            ValueError: the state belongs to another shape.
        """
        if state["mean"].shape != self.mean_D.shape:
            raise ValueError(f"statistics of {state['mean'].numel()} coordinates cannot serve {self.mean_D.numel()}")
        self.basis_VC = None
        for name, kept in self.state_dict().items():
            kept.copy_(state[name])
        self.basis_VC = state.get("basis")
        self.n = int(state["n"].item())


class NumericsError(RunError):
    """A decomposition that failed in every way there is, or a number that is not finite."""


@dataclass(frozen=True, slots=True)
class InverseRoot:
    """C^(-1/2) with floored eigenvalues, as the eigenpairs above the floor and one gain for everything else.

    C^(-1/2) = U diag(gains) U^T + rest (I - U U^T): exact, because all floored directions share their gain.
    Shape suffix: R eigenvalues above the floor.
    """

    vectors_VR: Tensor
    gains_R: Tensor
    rest: Tensor

    def apply(self, rows_NV: Tensor) -> Tensor:
        """Rows times C^(-1/2)."""
        parts_NR = rows_NV @ self.vectors_VR
        if self.vectors_VR.shape[0] == self.vectors_VR.shape[1]:
            return (parts_NR * self.gains_R) @ self.vectors_VR.T
        return self.rest * rows_NV + (parts_NR * (self.gains_R - self.rest)) @ self.vectors_VR.T


def inverse_root(
    covariance_VV: Tensor, floor: float, *, relative: bool = False, retries: Counter[str] | None = None
) -> InverseRoot:
    """Symmetric C^(-1/2) with the eigenvalues raised to at least `floor` (of the largest, if relative).

    A decomposition that fails is tried again in float64, then with 1e-12 and 1e-9 of the mean
    diagonal added to it; every retry is counted.

    Raises:
        NumericsError: all of them failed.
    """
    values_V, vectors_VV = _eigh(covariance_VV, retries if retries is not None else Counter())
    tiny = torch.finfo(values_V.dtype).tiny
    lowest = floor * values_V[-1].clamp(min=tiny) if relative else torch.full_like(values_V[-1], floor)
    above = int((values_V > lowest).sum())  # eigenvalues ascend
    first = len(values_V) - above
    dtype = covariance_VV.dtype
    gains_R = values_V[first:].rsqrt().to(dtype)
    return InverseRoot(vectors_VV[:, first:].to(dtype).contiguous(), gains_R, lowest.rsqrt().to(dtype))


def _eigh(matrix_VV: Tensor, retries: Counter[str]) -> tuple[Tensor, Tensor]:
    try:
        return torch.linalg.eigh(matrix_VV)
    except torch.linalg.LinAlgError:
        double_VV = matrix_VV.double()
    scale = double_VV.diagonal().mean() * torch.eye(len(matrix_VV), dtype=torch.float64, device=matrix_VV.device)
    for name, jitter in (("float64", 0.0), ("jitter 1e-12", 1e-12), ("jitter 1e-9", 1e-9)):
        retries[f"eigendecomposition in {name}"] += 1
        try:
            return torch.linalg.eigh(double_VV + jitter * scale)
        except torch.linalg.LinAlgError:
            continue
    raise NumericsError("the eigendecomposition of a covariance failed, in float64 and with jitter too")


class Normalizer:
    """Statistics frozen at one moment, ready to normalize rows (docs/design.md, 2.4).

    `root` whitens the value gradients; None normalizes them per coordinate.
    """

    def __init__(self, statistics: RunningStatistics, root: InverseRoot | None = None) -> None:
        d_k = statistics.d_k
        mean_D, scale_D = statistics.mean_D.float(), statistics.std_D.float() + EPSILON
        self.mean_K, self.mean_V = mean_D[:d_k], mean_D[d_k:]
        self.scale_K, self.scale_V = scale_D[:d_k], scale_D[d_k:]
        self.root = root

    def keys(self, keys_NK: Tensor) -> Tensor:
        """(k - mean) / (std + eps)."""
        return (keys_NK - self.mean_K) / self.scale_K

    def gradients(self, gradients_NV: Tensor) -> Tensor:
        """(g - mean) C^(-1/2) where whitening, else (g - mean) / (std + eps)."""
        centered_NV = gradients_NV - self.mean_V
        return centered_NV / self.scale_V if self.root is None else self.root.apply(centered_NV)


class Block(nn.Module):
    """x <- x + scale_m * relu(x A B + b) + shift_m, with scale and shift of its own per site m.

    Starts as the identity (B = 0). relu is written as clamp: its derivative at 0 is 1, where
    relu's would be 0 and the block could never leave its start.
    """

    def __init__(self, size: int, rank: int, n_sites: int, generator: torch.Generator) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.randn(size, rank, generator=generator))
        self.B = nn.Parameter(torch.zeros(rank, size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.scale = nn.Embedding.from_pretrained(torch.ones(n_sites, size), freeze=False)
        self.shift = nn.Embedding.from_pretrained(torch.zeros(n_sites, size), freeze=False)

    def forward(self, x_ND: Tensor, site: int) -> Tensor:
        """Same shape out as in."""
        hidden_ND = (x_ND @ self.A @ self.B + self.bias).clamp(min=0)
        return x_ND + self.scale.weight[site] * hidden_ND + self.shift.weight[site]


class EditNetwork(nn.Module):
    """The learned editors' network of one weight shape (docs/design.md, 3).

    Maps normalized rows [k, g] to pseudo keys and value gradients; has a step size (`lr`) and a
    log-ridge (`lamda`) of its own per site. Parameters are named as in the published program.
    """

    def __init__(
        self, d_k: int, d_v: int, *, rank: int, n_blocks: int, n_sites: int, lr: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.d_k, self.d_v = d_k, d_v
        self.blocks = nn.ModuleList(Block(d_k + d_v, rank, n_sites, generator) for _ in range(n_blocks))
        self.lr = nn.Embedding.from_pretrained(torch.full((n_sites, 1), lr), freeze=False)
        self.lamda = nn.Embedding.from_pretrained(torch.zeros(n_sites, 1), freeze=False)

    def forward(self, keys_NK: Tensor, gradients_NV: Tensor, site: int) -> tuple[Tensor, Tensor]:
        """Pseudo keys [N, d_k] and pseudo value gradients [N, d_v] of normalized rows."""
        x_ND = torch.cat((keys_NK, gradients_NV), dim=1)
        for block in self.blocks:
            x_ND = block(x_ND, site)
        pseudo_keys_NK, pseudo_gradients_NV = x_ND.split((self.d_k, self.d_v), dim=1)
        return pseudo_keys_NK, pseudo_gradients_NV
