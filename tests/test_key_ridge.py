"""editor.key_ridge: a ridge weighted by the second moment of all keys so far, against plain float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from config.check import ConfigError
from config.choices import StatisticsMode
from editor.ridge import solve_ridge, solve_weighted
from lifelong import run as lifelong_run
from lifelong import session
from nets import RunningStatistics
from tests.reference_cases import relative
from tests.test_resume import Killed, assert_same_run, kill_after, last_state, run
from tests.test_stableedit_options import CPU, D_K, D_V, LONG, blocks_of, edit, make_editor, pooled, same, spied_rows
from tests.tiny import tiny_words

SHARE = 0.9
RIDGE = f"editor.key_ridge={SHARE}"


def plain_weights(keys_NK: Tensor, share: float) -> Tensor:
    """M from its definition, in float64."""
    keys = keys_NK.double()
    moment_KK, identity_KK = keys.T @ keys / len(keys), torch.eye(keys.shape[1], dtype=torch.float64)
    return (1 - share) * identity_KK + share * moment_KK * keys.shape[1] / moment_KK.trace()


def plain_shift(keys_NK: Tensor, targets_NV: Tensor, alpha: float, weights_KK: Tensor) -> Tensor:
    """S from its definition, a d_k x d_k solve in float64."""
    keys = keys_NK.double()
    return torch.linalg.solve(keys.T @ keys + alpha * weights_KK, keys.T @ targets_NV.double())


@pytest.mark.parametrize("sizes", [(1,), (D_K - 2,), (1, 13, 2, 40)], ids=str)
@pytest.mark.parametrize("share", [0.3, SHARE, 0.999])
def test_the_factor_follows_its_definition(sizes, share):
    blocks = blocks_of(*sizes)
    factor_KK = pooled(blocks).ridge_factor(share)
    weights_KK = plain_weights(torch.cat(blocks)[:, :D_K], share)
    assert torch.equal(factor_KK, factor_KK.tril()) and factor_KK.dtype == torch.float64
    assert relative(factor_KK @ factor_KK.T, weights_KK) < 1e-6
    assert weights_KK.trace().item() == pytest.approx(D_K)


def test_keys_that_are_all_zero_leave_a_ridge():
    statistics = RunningStatistics(D_K, D_V, covariance=False, device=CPU, key_covariance=True)
    statistics.add(torch.zeros(3, D_K), torch.ones(3, D_V))
    factor_KK = statistics.ridge_factor(0.75)
    torch.testing.assert_close(factor_KK, 0.5 * torch.eye(D_K, dtype=torch.float64))


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("rows", [1, 5, D_K - 1, D_K, D_K + 1, 40])
def test_both_systems_give_the_weighted_shift(rows, alpha):
    (block,) = blocks_of(rows)
    keys_NK, targets_NV = block.double().split((D_K, D_V), dim=1)
    weights_KK = plain_weights(torch.cat(blocks_of(9, 60))[:, :D_K], SHARE)
    shift = solve_weighted(keys_NK, targets_NV, alpha, torch.linalg.cholesky(weights_KK))
    assert (shift.left_NK is not None) == (rows < D_K), "the smaller system"
    assert relative(shift.matrix(), plain_shift(keys_NK, targets_NV, alpha, weights_KK)) < 1e-7


@pytest.mark.parametrize("rows", [5, 40])
def test_equal_weights_are_the_plain_ridge(rows):
    keys_NK, targets_NV = blocks_of(rows)[0].split((D_K, D_V), dim=1)
    found = solve_weighted(keys_NK, targets_NV, 2.0, torch.eye(D_K, dtype=torch.float64))
    assert found.matrix().dtype == torch.float32
    assert relative(found.matrix(), solve_ridge(keys_NK, targets_NV, 2.0).matrix()) < 1e-6


def test_a_direction_that_all_keys_share_is_left_alone():
    """Two edits of the same target, a key each: half what all keys share, half its own."""
    shared_K, own_K = torch.eye(D_K)[0], torch.eye(D_K)[1]
    statistics = RunningStatistics(D_K, D_V, covariance=False, device=CPU, key_covariance=True)
    statistics.add(shared_K + 0.1 * blocks_of(50)[0][:, :D_K], torch.ones(50, D_V))
    key_NK, target_NV = (shared_K + own_K)[None], torch.ones(1, D_V)
    plain = solve_ridge(key_NK, target_NV, 1e-3).matrix()
    found = solve_weighted(key_NK, target_NV, 1e-3, statistics.ridge_factor(SHARE)).matrix()
    torch.testing.assert_close(key_NK @ found, target_NV, rtol=2e-2, atol=0)  # the edit lands as well
    assert (shared_K @ found).norm() < 0.5 * (shared_K @ plain).norm()


@pytest.mark.parametrize("mode", list(StatisticsMode))
@pytest.mark.parametrize("last_is_warm_up", [False, True])
def test_a_whole_step_equals_plain_float64(mode, last_is_warm_up, monkeypatch):
    seen = spied_rows(monkeypatch)
    plan = [True, False, False, last_is_warm_up]
    plain = edit(make_editor(RunningMeanStd_mode=mode), *plan)
    del seen[:]
    editor = make_editor(RunningMeanStd_mode=mode, key_ridge=SHARE)
    weighted = edit(editor, *plan)
    every_NK = torch.cat([row.keys_NK for step in seen for row in step])
    weights_KK = plain_weights(every_NK, SHARE)
    for rows, before, shift in zip(seen[-1], plain[-1], weighted[-1], strict=True):
        keys_NK = rows.keys_NK.double()
        system_KK = keys_NK.T @ keys_NK + 10.0 * torch.eye(keys_NK.shape[1], dtype=torch.float64)
        right_KV = system_KK @ (before.matrix().double() * 1e20)  # K^T V of the same rows
        expected_KV = torch.linalg.solve(keys_NK.T @ keys_NK + 10.0 * weights_KK, right_KV)
        assert relative(shift.matrix() * 1e20, expected_KV) < 1e-3
    assert not same(plain[-1], weighted[-1])


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [5, 40])
def test_gpu_gives_what_the_cpu_gives(rows):
    found = []
    for device in (CPU, torch.device("cuda:0")):
        statistics = RunningStatistics(D_K, D_V, covariance=False, device=device, key_covariance=True)
        statistics.add(*(x.to(device) for x in blocks_of(60)[0].split((D_K, D_V), dim=1)))
        keys_NK, targets_NV = (x.to(device) for x in blocks_of(rows)[0].split((D_K, D_V), dim=1))
        found.append(solve_weighted(keys_NK, targets_NV, 1.0, statistics.ridge_factor(SHARE)).matrix().cpu())
    assert relative(found[1], found[0]) < 1e-5


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch):
    argv = tiny_words("checkpoint.every=1", *LONG, RIDGE)
    run(tmp_path / "whole", argv)
    with monkeypatch.context() as patch:
        kill_after(patch, 4, lifelong_run.Loop, "step")
        with pytest.raises(Killed):
            run(tmp_path / "killed", argv)
    names = {name for name in last_state(tmp_path / "killed") if name.startswith("statistics")}
    assert names == {f"statistics/(112, 48)/{name}" for name in ("n", "mean", "var", "cov_value", "cov_key")}
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'killed'}")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(
    ("editor", "word", "says"),
    [
        ("stableedit", "editor.key_ridge=1", "editor.key_ridge=1.0: .*below 1"),
        ("stableedit", "editor.key_ridge=-0.1", "editor.key_ridge=-0.1: .*0 or more"),
        ("ultraedit", "editor.key_ridge=nan", "editor.key_ridge=nan: .*below 1"),
    ],
)
def test_refused_before_a_model_loads(editor, word, says, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "load_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=says):
        run(tmp_path / "run", tiny_words(word, editor=editor))
