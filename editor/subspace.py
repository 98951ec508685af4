"""C^(-1/2) of a large covariance from the eigenpairs above the floor alone, going on from the last step's.

A block Krylov space: the last step's vectors with spare ones, widened by what the covariance makes of them; Rayleigh
and Ritz's pairs in it; then a certificate that nothing above the floor was missed, and what the pairs' residuals leave
of exactness. What does not hold is decomposed whole (docs/design.md, 2.4).

Shape suffixes: V = d_v, C pairs kept, M columns of the space, B columns of a block.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from config.choices import WhiteningSolver
from nets import InverseRoot, inverse_root

LARGE = 2048
"""From this d_v on, editor.whitening_solver=auto searches a subspace."""
MOST = 4
"""Where more than one eigenvalue in so many lies above the floor the whole decomposition is cheaper."""
BLOCKS, CYCLES = 6, 6
SLACK = 1.0001  # of the floor: what a missed eigenvalue may be
EXACT = 5e-6  # relative error of whitened rows; that of a whole decomposition in float32 is 5e-7
FLOAT32 = torch.finfo(torch.float32)


@dataclass(frozen=True, slots=True)
class Found:
    """Pairs of one search, largest first, whether they may be used, and how many values lie above the floor."""

    root: InverseRoot
    holds: bool
    above: int


def searches(solver: WhiteningSolver, d_v: int) -> bool:
    """Whether a covariance of that size is to be searched for the eigenpairs above the floor."""
    return solver is WhiteningSolver.subspace or (solver is WhiteningSolver.auto and d_v >= LARGE)


def subspace_root(
    covariance_VV: Tensor,
    floor: float,
    *,
    relative: bool = False,
    basis_VC: Tensor | None = None,
    rows: int = 1,
    retries: Counter[str] | None = None,
) -> tuple[InverseRoot, Tensor | None]:
    """nets.inverse_root of a float32 covariance, and the basis that the next call is to be given.

    `basis_VC` is what the last call gave: None at first; without columns once too much lay above the floor, which
    leaves it to whole decompositions until one finds less. `rows` are new in the covariance since then.

    Raises:
        NumericsError: the whole decomposition was needed and failed.
    """
    size, retries, fresh = len(covariance_VV), Counter() if retries is None else retries, basis_VC is None
    if basis_VC is None:
        basis_VC = _random((size, min(max(rows, 1), size // 8)), covariance_VV)
    cycles = CYCLES if basis_VC.shape[1] else 0
    for cycle in range(cycles):
        found = _search(covariance_VV, floor, relative, basis_VC, rows, double=fresh or cycle > 0)
        if found is None or found.above > size // MOST:
            break
        basis_VC = found.root.vectors_VR[:, : found.above + _spare(found.above)].contiguous()
        if found.holds:
            return found.root, basis_VC
    else:
        if cycles:
            retries["eigendecomposition in whole"] += 1
    root = inverse_root(covariance_VV, floor, relative=relative, retries=retries)
    above = root.vectors_VR.shape[1]
    if not above:
        return root, None
    return root, root.vectors_VR.flip(1)[:, : above if above <= size // MOST else 0].contiguous()


def _spare(above: int) -> int:
    """Columns beyond those above the floor: the more, the fewer products until those have converged."""
    return max(8, above // 8)


def _random(shape: tuple[int, int], like: Tensor) -> Tensor:
    """The same normal numbers at every call, so that a run that goes on draws as one without a break."""
    generator = torch.Generator(like.device).manual_seed(0)
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def _search(
    covariance_VV: Tensor, floor: float, relative: bool, basis_VC: Tensor, rows: int, *, double: bool
) -> Found | None:
    """One cycle from a basis, which it may double; None where it is too wide for one, or the projection fails."""
    size, kept = basis_VC.shape
    block = min(kept, rows + rows // 4 + 8, (3 * size // 4 - kept) // BLOCKS)
    if block < 1:
        return None
    Q_VM, images_VM = _krylov(covariance_VV, basis_VC, block)
    try:
        values_M, vectors_MM = torch.linalg.eigh(Q_VM.T @ images_VM)  # ascending
    except torch.linalg.LinAlgError:
        return None
    most = min(kept + (kept if double else _spare(kept)), len(values_M))
    values_C, vectors_MC = values_M[-most:].flip(0), vectors_MM[:, -most:].flip(1)
    vectors_VC = Q_VM @ vectors_MC
    lowest = floor * values_C[0].clamp(min=FLOAT32.tiny) if relative else torch.full_like(values_C[0], floor)
    residuals_C = torch.addmm(vectors_VC * values_C, images_VM, vectors_MC, beta=-1).norm(dim=0)
    error = _error(values_C, residuals_C, lowest, covariance_VV.diagonal().sum())
    within = error <= torch.clamp(FLOAT32.eps / 4 * values_C[0] / lowest, min=EXACT)
    if basis_VC.is_cuda or within:  # a CPU may look first: there the factorization is most of the time
        within = within & (_left(covariance_VV, values_C, vectors_VC, lowest) == 0)
    told = torch.stack([within.long(), (values_M > lowest).sum()]).tolist()  # the one wait beside the projection's
    root = InverseRoot(vectors_VC, values_C.clamp(min=lowest).rsqrt(), lowest.rsqrt())
    return Found(root, bool(told[0]), told[1])


def _krylov(covariance_VV: Tensor, basis_VC: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """An orthonormal basis Q [V, M] of span [U, R, C R, C^2 R, ...], and C Q; R is what C U has outside of U.

    R has no more rank than there are new rows (or columns of U): a random block of it holds what matters.
    """
    size, kept = basis_VC.shape
    Q_VM = basis_VC.new_empty(size, kept + BLOCKS * block)
    images_VM = torch.empty_like(Q_VM)
    Q_VM[:, :kept] = torch.linalg.qr(basis_VC).Q
    images_VM[:, :kept] = covariance_VV @ Q_VM[:, :kept]
    new_VB = images_VM[:, :kept] @ _random((kept, block), basis_VC)
    for first in range(kept, Q_VM.shape[1], block):
        before_VM = Q_VM[:, :first]
        for _ in range(2):  # once leaves float32 too far from orthogonal
            new_VB = torch.linalg.qr(new_VB - before_VM @ (before_VM.T @ new_VB)).Q
        Q_VM[:, first : first + block] = new_VB
        images_VM[:, first : first + block] = new_VB = covariance_VV @ new_VB
    return Q_VM, images_VM


def _error(values_C: Tensor, residuals_C: Tensor, lowest: Tensor, trace: Tensor) -> Tensor:
    """What residuals of the pairs above the floor do to whitened rows of this covariance, relative, squared mean.

    A pair is off by an angle of residual / distance to what was not kept; that moves a row's part, sqrt(value) long,
    between gains that differ by 1 / sqrt(floor) - 1 / sqrt(value): near the floor it hardly matters.
    """
    above_C = values_C > lowest
    angles_C = residuals_C / (values_C - values_C[-1]).clamp(min=FLOAT32.tiny)
    moved_C = torch.where(above_C, angles_C * ((values_C / lowest).clamp(min=1).sqrt() - 1), 0.0)
    rest = (trace - (values_C * above_C).sum()).clamp(min=0) / lowest
    return moved_C.norm() / (above_C.sum() + rest).clamp(min=FLOAT32.tiny).sqrt()


def _left(covariance_VV: Tensor, values_C: Tensor, vectors_VC: Tensor, lowest: Tensor) -> Tensor:
    """0 if what the pairs leave of the covariance has no eigenvalue above the floor: its Cholesky factor exists."""
    room_VV = torch.addmm(covariance_VV, vectors_VC * values_C, vectors_VC.T, beta=-1)
    room_VV.diagonal().add_(SLACK * lowest)
    return torch.linalg.cholesky_ex(room_VV).info
