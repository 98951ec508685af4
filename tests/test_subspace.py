"""editor/subspace.py: the eigenpairs above the floor against float64 eigh, and what is kept for the next step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from config.compose import compose_config
from editor import stableedit, subspace
from editor.subspace import EXACT, searches, subspace_root
from nets import InverseRoot, RunningStatistics, inverse_root
from tests.reference_cases import case_names, load_case
from tests.test_kept_tensors import finished, loose
from tests.test_reference import test_reference as hold_reference
from tests.test_resume import assert_resumed_is_uninterrupted, count_calls, last_state, run, words
from tests.test_session import EDITS, copied, opened, opened_again, same
from tests.tiny import tiny_words

SIZE, ROWS, FLOOR = 384, 10, 1e-6
SEARCHED = ["editor.whitening_solver=subspace", "editor.whitening_floor=0.3", "editor.whitening_floor_mode=relative"]
RANKS = torch.arange(1, SIZE + 1, dtype=torch.float64)
DECAYS: dict[str, Tensor] = {
    "as measured": 5.6e-6 * torch.exp(-1.65 * (RANKS**0.2 - 1)),  # benchmarks/subspace.py
    "near the floor": FLOOR * (1 + 0.02 * torch.cos(RANKS)) * torch.where(RANKS < 40, 1.0, 0.9),
    "of rank 20": torch.where(RANKS <= 20, 1e-5 / RANKS, 0.0),
    "steep": 1e-3 * torch.exp(-RANKS / 6),
    "below the floor": 1e-7 / RANKS,
}


def mixed(seed: int = 0) -> Tensor:
    """Orthonormal vectors [V, V]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(SIZE, SIZE, dtype=torch.float64, generator=generator)).Q


def spectral(values_V: Tensor) -> Tensor:
    """A covariance of these eigenvalues."""
    vectors_VV = mixed()
    return (vectors_VV * values_V) @ vectors_VV.T


def rows_like(values_V: Tensor, count: int, seed: int) -> Tensor:
    """Rows [N, V] of the covariance spectral(values)."""
    normal = torch.randn(count, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return normal * values_V.sqrt() @ mixed().T


def off(root: InverseRoot, covariance_VV: Tensor, rows_NV: Tensor, floor: float = FLOOR) -> float:
    """Relative error of whitened rows against float64."""
    values_V, vectors_VV = torch.linalg.eigh(covariance_VV)
    exact_NV = rows_NV @ (vectors_VV * values_V.clamp(min=floor).rsqrt()) @ vectors_VV.T
    return ((root.apply(rows_NV.float()).double() - exact_NV).norm() / exact_NV.norm()).item()


@pytest.mark.parametrize("decay", DECAYS)
def test_fresh_and_going_on_it_whitens_as_float64_does(decay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values_V, basis_VC, retries = DECAYS[decay], None, Counter[str]()
    covariance_VV, n, cycles = spectral(values_V), 3 * SIZE, []
    calls = count_calls(monkeypatch, subspace, "_search")
    for step in range(5):
        root, basis_VC = subspace_root(covariance_VV.float(), FLOOR, basis_VC=basis_VC, rows=ROWS, retries=retries)
        rows_NV = rows_like(values_V, 200, seed=100 + step)
        limit = max(2 * EXACT, 4 * off(inverse_root(covariance_VV.float(), FLOOR), covariance_VV, rows_NV))
        assert off(root, covariance_VV, rows_NV) < limit
        assert root.vectors_VR.shape[1] < SIZE / 2, "found by a search"
        assert basis_VC is not None and basis_VC.is_contiguous()
        above = int((torch.linalg.eigvalsh(covariance_VV) > FLOOR).sum())
        assert above - 4 <= basis_VC.shape[1] - subspace._spare(above) <= above + 1, "those a hair above may be missed"
        cycles.append(len(calls))
        new_NV = rows_like(values_V, ROWS, seed=step)
        covariance_VV = (covariance_VV * n + new_NV.T @ new_NV) / (n + ROWS)
        n += ROWS
    assert not retries
    assert cycles[-1] - cycles[0] <= 6, "a step that goes on takes a search, rarely two"


def test_relative_floor() -> None:
    covariance_VV = spectral(values_V := DECAYS["as measured"])
    root, _ = subspace_root(covariance_VV.float(), 0.2, relative=True, rows=ROWS)
    assert off(root, covariance_VV, rows_like(values_V, 200, 1), 0.2 * values_V[0].item()) < 2 * EXACT


def test_more_columns_as_more_rises_above_the_floor() -> None:
    values_V, widths, basis_VC = DECAYS["as measured"], [], None
    for factor in (1, 1.3, 1.8, 0.7):
        covariance_VV = factor * spectral(values_V)
        root, basis_VC = subspace_root(covariance_VV.float(), FLOOR, basis_VC=basis_VC, rows=ROWS)
        assert basis_VC is not None and off(root, covariance_VV, rows_like(values_V, 200, 1)) < 2 * EXACT
        widths.append(basis_VC.shape[1])
    assert widths[3] < widths[0] < widths[1] < widths[2]


def test_the_certificate_misses_no_pair() -> None:
    covariance_VV, floor = spectral(DECAYS["as measured"]).float(), torch.tensor(FLOOR)
    values_V, vectors_VV = (found.flip(-1) for found in torch.linalg.eigh(covariance_VV))
    above = int((values_V > FLOOR).sum())
    for left_out in range(above):
        kept = [rank for rank in range(above) if rank != left_out]
        assert subspace._left(covariance_VV, values_V[kept], vectors_VV[:, kept], floor) > 0
    assert subspace._left(covariance_VV, values_V[:above], vectors_VV[:, :above], floor) == 0


def test_what_is_not_certified_is_decomposed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    covariance_VV, retries = spectral(DECAYS["as measured"]).float(), Counter[str]()
    with monkeypatch.context() as patch:
        patch.setattr(subspace, "_left", lambda *_: torch.tensor(1))
        root, basis_VC = subspace_root(covariance_VV, FLOOR, rows=ROWS, retries=retries)
    whole = inverse_root(covariance_VV, FLOOR)
    assert torch.equal(root.vectors_VR, whole.vectors_VR) and torch.equal(root.gains_R, whole.gains_R)
    assert retries == {"eigendecomposition in whole": 1}
    calls = count_calls(monkeypatch, subspace, "_search")
    subspace_root(covariance_VV, FLOOR, basis_VC=basis_VC, rows=ROWS)
    assert len(calls) == 1, "goes on from what was decomposed whole"


def test_a_basis_that_has_lost_the_largest_pair_does_not_pass() -> None:
    """Nothing but rounding leads back to it from exact eigenvectors of all others."""
    covariance_VV = torch.diag(DECAYS["as measured"]).float()
    basis_VC = torch.eye(SIZE)[:, 1:60].contiguous()
    root, _ = subspace_root(covariance_VV, FLOOR, basis_VC=basis_VC, rows=ROWS)
    assert off(root, covariance_VV.double(), torch.eye(SIZE, dtype=torch.float64)[:10]) < 2 * EXACT


def test_much_above_the_floor_is_left_to_eigh(monkeypatch: pytest.MonkeyPatch) -> None:
    covariance_VV = spectral(DECAYS["as measured"]).float()
    calls, retries = count_calls(monkeypatch, subspace, "_search"), Counter[str]()
    root, basis_VC = subspace_root(covariance_VV, 1e-8, rows=ROWS, retries=retries)
    assert basis_VC is not None and basis_VC.shape == (SIZE, 0) and calls and not retries
    assert torch.equal(root.vectors_VR, inverse_root(covariance_VV, 1e-8).vectors_VR)
    calls.clear()
    _, basis_VC = subspace_root(covariance_VV, FLOOR, basis_VC=basis_VC, rows=ROWS)
    assert not calls and basis_VC is not None and basis_VC.shape[1] > 0, "less is above: the next step searches"
    subspace_root(covariance_VV, FLOOR, basis_VC=basis_VC, rows=ROWS)
    assert calls


@pytest.mark.parametrize("covariance", [torch.zeros(64, 64), torch.full((64, 64), 1e-3), torch.eye(3)])
@pytest.mark.parametrize("relative", [False, True])
def test_degenerate_covariances(covariance: Tensor, relative: bool) -> None:
    root, _ = subspace_root(covariance, 1e-2, relative=relative, rows=5)
    rows = torch.eye(len(covariance))
    expected = inverse_root(covariance, 1e-2, relative=relative).apply(rows)
    torch.testing.assert_close(root.apply(rows), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_draws_nothing_from_the_random_state() -> None:
    before = torch.get_rng_state()
    subspace_root(spectral(DECAYS["as measured"]).float(), FLOOR, rows=ROWS)
    assert torch.equal(torch.get_rng_state(), before)


def test_auto_is_by_size() -> None:
    solver = compose_config(tiny_words()).editor.whitening_solver  # type: ignore[attr-defined]
    assert (searches(solver, 2047), searches(solver, 2048)) == (False, True)
    kinds = type(solver)
    assert searches(kinds.subspace, 2) and not searches(kinds.eigh, 10**5)


def test_statistics_keep_the_basis_and_forget_it() -> None:
    made = [RunningStatistics(3, 4, covariance=True, device=torch.device("cpu")) for _ in range(2)]
    empty = {name: value.clone() for name, value in made[0].state_dict().items()}
    made[0].add(torch.randn(9, 3), torch.randn(9, 4))
    made[0].basis_VC = torch.randn(4, 2)
    made[1].load_state_dict({name: value.clone() for name, value in made[0].state_dict().items()})
    assert made[1].basis_VC is not None and torch.equal(made[1].basis_VC, made[0].basis_VC)
    made[1].load_state_dict(empty)
    assert made[1].basis_VC is None and made[1].n == 0 and "basis" not in made[1].state_dict()


def held(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For every whitening from now, whether a search held."""
    seen, real = list[bool](), subspace.subspace_root

    def watched(*args: Any, **more: Any) -> Any:
        found = real(*args, **more)
        seen.append(found[0].vectors_VR.shape[1] > int((found[0].gains_R < 0.999 * found[0].rest).sum()))
        return found

    monkeypatch.setattr(stableedit, "subspace_root", watched)
    return seen


def test_resumed_is_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = held(monkeypatch)
    assert_resumed_is_uninterrupted(words("stableedit", "editor.lr=1e-2", *SEARCHED), tmp_path, monkeypatch)
    assert any(seen)
    names = [name for name in last_state(tmp_path / "whole") if name.endswith("/basis")]
    assert names and not [name for name in last_state(tmp_path / "whole") if name.endswith("added")]


def test_undo_and_open_are_bitwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, states = held(monkeypatch), list[dict[str, Tensor]]()
    said = dict(word.removeprefix("editor.").split("=") for word in SEARCHED)
    session = opened(**said)
    for start in (None, 0, 8, 16):
        if start is not None:
            session.edit(EDITS[start : start + 8])
        states.append(copied(session))
    session.undo()
    assert same(copied(session), states[2])
    opened_again(session, states, tmp_path)
    assert any(seen) and any(name.endswith("/basis") for name in states[3])


def test_the_basis_that_is_kept_is_contiguous_and_is_what_the_next_step_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = finished(tmp_path, monkeypatch, "stableedit", *SEARCHED)
    tensors = kept.tensors()
    assert loose(tensors) == []
    for shape, statistics in kept.editor.statistics.items():
        assert statistics.basis_VC is not None and tensors[f"statistics/{shape}/basis"] is statistics.basis_VC


def test_both_solvers_edit_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = held(monkeypatch)
    argv = words("stableedit", "editor.lr=1e-2", *SEARCHED)
    run(tmp_path / "subspace", argv)
    assert any(seen)
    run(tmp_path / "eigh", [*argv[:-3], *argv[-2:], "editor.whitening_solver=eigh"])
    one, other = (last_state(tmp_path / name) for name in ("subspace", "eigh"))
    assert one.keys() - other.keys() == {name for name in one if name.endswith("/basis")}
    for name in (name for name in other if name.startswith(("weight/", "shift_right/"))):
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4 * other[name].abs().max().item())


STABLE = [
    name for name in case_names() if load_case(name).expected["config"]["editor"]["RunningMeanStd_mode"] == "stable"
]


@pytest.mark.slow
@pytest.mark.parametrize("name", STABLE)
def test_reference_cases_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other cases whiten nothing; what the published floor leaves to eigh here was searched first."""
    calls = count_calls(monkeypatch, stableedit, "subspace_root")
    monkeypatch.setattr(stableedit, "searches", lambda *_: True)
    state = RunningStatistics.state_dict
    # the expected statistics are the published program's: they have no basis
    monkeypatch.setattr(
        RunningStatistics, "state_dict", lambda self: {k: v for k, v in state(self).items() if k != "basis"}
    )
    hold_reference(name, tmp_path, monkeypatch)
    assert calls
