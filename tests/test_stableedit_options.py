"""Options of StableEdit beyond the paper: whitened keys, statistics per site, and editor=stableedit_plus."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Any

import pytest
import torch
from sklearn.covariance import oas
from torch import Tensor

from config.check import LEARNED, ConfigError
from config.compose import compose_config
from config.schema import EditorConfig, FloorMode, Shrinkage, StatisticsMode, StatisticsPer
from data.batches import step_batches
from editor.base import Editor, Workbench
from editor.cache import MemoryCache
from editor.capture import Rows
from editor.ridge import Shift
from editor.sites import find_sites
from editor.stableedit import StableEdit
from lifelong import run as lifelong_run
from lifelong.setup import EDITORS
from nets import Normalizer, NumericsError, RunningStatistics
from tests.reference_cases import relative
from tests.test_resume import Killed, assert_same_run, count_calls, kill_after, last_state, numbers, run
from tests.tiny import SITES, load_tiny, tiny_edits, tiny_tokenizer, tiny_words

D_K, D_V = 7, 5
CPU = torch.device("cpu")
STEP = 8  # edits of a step
NAMES = SITES["tiny-llama"]
LONG = ["num_seq=6", "num_seq_zsre=1"]  # past d_k + 1 rows in the second step
KEYS, PER_SITE = "editor.whiten_keys=true", "editor.statistics_per=site"


def blocks_of(*sizes: int) -> list[Tensor]:
    """Blocks of correlated rows [k, g], float32, around means far from 0."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(D_K + D_V, D_K + D_V, generator=generator)
    scale = torch.logspace(-1, 1, D_K + D_V)
    return list((torch.randn(sum(sizes), D_K + D_V, generator=generator) @ mix * scale + 2.0).split(sizes))


def pooled(blocks: list[Tensor], *, key_covariance: bool = True) -> RunningStatistics:
    """Statistics that took the blocks one by one."""
    statistics = RunningStatistics(D_K, D_V, covariance=True, device=CPU, key_covariance=key_covariance)
    for block in blocks:
        statistics.add(block[:, :D_K], block[:, D_K:])
    return statistics


def plain_root(rows_ND: Tensor, floor: float, *, relative: bool, shrink: bool) -> Tensor:
    """C^(-1/2) in float64 from the definition: C = X'X / (n - d - 1), shrunk, eigenvalues raised to the floor."""
    n, size = rows_ND.shape
    scaled_ND = (rows_ND - rows_ND.mean(0)) * (n / (n - size - 1)) ** 0.5  # X'X / n is C
    covariance_DD = scaled_ND.T @ scaled_ND / n
    if shrink:
        covariance_DD = torch.from_numpy(oas(scaled_ND.numpy(), assume_centered=True)[0])
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    lowest = floor * values_D[-1].item() if relative else floor
    return vectors_DD @ torch.diag(values_D.clamp(min=lowest).rsqrt()) @ vectors_DD.T


def make_editor(*sites: str, **keys: Any) -> Editor:
    """A ridge editor on a tiny model, with a step size whose shifts leave the weights as they are.

    So editors with different settings see the same rows in every step.
    """
    usual = {"name": "stableedit", "RunningMeanStd_mode": StatisticsMode.stable, "alpha": 10.0, "lr": 1e-20}
    cfg, model = EditorConfig(**(usual | keys)), load_tiny("tiny-llama")
    found = find_sites(model, list(sites or NAMES), masters=False)
    return EDITORS[cfg.name](cfg, Workbench(model, found, MemoryCache(), CPU, 0))


def edit(editor: Editor, *warm_up: bool) -> list[list[Shift]]:
    """The shifts of as many steps, by step and site."""
    made, edits = [], tiny_edits(count=STEP * len(warm_up))
    for index, flag in enumerate(warm_up):
        batches = step_batches(tiny_tokenizer("tiny-llama"), edits[index * STEP :][:STEP], STEP)
        editor.step(batches, warm_up=flag)
        made.append([editor.last_shifts[site.name] for site in editor.sites])
    return made


def same(first: list[Shift], second: list[Shift]) -> bool:
    """Bitwise the same shifts."""
    return all(torch.equal(a.matrix(), b.matrix()) for a, b in zip(first, second, strict=True))


def spied_rows(monkeypatch: pytest.MonkeyPatch) -> list[list[Rows]]:
    """Filled with the raw rows of every step from now, by step and site."""
    seen, real = [], StableEdit.shifts

    def shifts(self, micro_batches, watch, *, warm_up):
        seen.append([self.gather(index, micro_batches) for index in range(len(self.sites))])
        return real(self, micro_batches, watch, warm_up=warm_up)

    monkeypatch.setattr(StableEdit, "shifts", shifts)
    return seen


# whitened keys


def test_key_scatter_is_merged_exactly():
    blocks = blocks_of(1, 13, 2, 40, 100)
    rows_NK = torch.cat(blocks)[:, :D_K].double()
    centered_NK = rows_NK - rows_NK.mean(0)
    assert relative(pooled(blocks).scatter_KK, centered_NK.T @ centered_NK) < 1e-6
    assert relative(pooled(blocks[::-1]).scatter_KK, centered_NK.T @ centered_NK) < 1e-6


def test_key_scatter_is_copied_and_kept_only_where_asked_for():
    statistics = pooled(blocks_of(40))
    kept, loaded = statistics.copy(), pooled([])
    loaded.load_state_dict(statistics.state_dict())
    statistics.add(*blocks_of(9)[0].split((D_K, D_V), dim=1))
    for twin in (kept, loaded):
        assert torch.equal(twin.scatter_KK, pooled(blocks_of(40)).scatter_KK)
        twin.add(*blocks_of(9)[0].split((D_K, D_V), dim=1))
        assert torch.equal(twin.scatter_KK, statistics.scatter_KK)
    assert pooled([], key_covariance=False).state_dict().keys() == statistics.state_dict().keys() - {"cov_key"}


@pytest.mark.parametrize(("rows", "whitens"), [(D_K + 1, False), (D_K + 2, True)])
def test_key_whitening_waits_for_rows(rows, whitens):
    assert pooled(blocks_of(rows)).whitens_keys is whitens


@pytest.mark.parametrize(("floor", "is_share"), [(1e-9, False), (0.5, False), (1e-2, True)])
@pytest.mark.parametrize("shrink", [False, True])
def test_whitened_keys_follow_their_definition(floor, is_share, shrink):
    blocks = blocks_of(1, 13, 40, 100)
    rows_NK = torch.cat(blocks)[:, :D_K]
    statistics = pooled(blocks)
    root = statistics.inverse_root(floor, relative=is_share, shrink=shrink, keys=True)
    plain_KK = plain_root(rows_NK.double(), floor, relative=is_share, shrink=shrink)
    expected_NK = (rows_NK.double() - rows_NK.double().mean(0)) @ plain_KK
    assert relative(Normalizer(statistics, key_root=root).keys(rows_NK), expected_NK) < 1e-4


@pytest.mark.parametrize("shrinkage", list(Shrinkage))
@pytest.mark.parametrize("mode", list(FloorMode))
def test_a_whole_step_with_whitened_keys_equals_plain_float64(mode, shrinkage, monkeypatch):
    seen = spied_rows(monkeypatch)
    keys = {"whitening_floor": 1e-2, "whitening_floor_mode": mode, "shrinkage": shrinkage}
    floor = {"relative": mode is FloorMode.relative, "shrink": shrinkage is Shrinkage.oas}
    editor = make_editor(whiten_keys=True, **keys)
    shifts = edit(editor, True, False, False)[-1]
    every_NK = torch.cat([row.keys_NK for step in seen for row in step]).double()
    every_NV = torch.cat([row.gradients_NV for step in seen for row in step]).double()
    assert len(every_NK) > every_NK.shape[1] + 1, "keys are whitened"
    roots = plain_root(every_NK, 1e-2, **floor), plain_root(every_NV, 1e-2, **floor)
    for rows, shift in zip(seen[-1], shifts, strict=True):
        raw_NK = rows.keys_NK.double()
        white_NK = (raw_NK - every_NK.mean(0)) @ roots[0]
        white_NV = (rows.gradients_NV.double() - every_NV.mean(0)) @ roots[1]
        targets_NV = -1e-20 * white_NK.square().sum(1, keepdim=True) * white_NV
        system_KK = raw_NK.T @ raw_NK + 10.0 * torch.eye(raw_NK.shape[1], dtype=torch.float64)
        expected_KV = torch.linalg.solve(system_KK, raw_NK.T @ targets_NV)
        assert relative(shift.matrix() * 1e20, expected_KV * 1e20) < 1e-3


def test_keys_are_whitened_after_enough_rows_and_never_in_warm_up():
    plain, white = make_editor(), make_editor(whiten_keys=True)
    plan = [False, True, True, False]
    steps = list(zip(edit(plain, *plan), edit(white, *plan), strict=True))
    (statistics,) = white.statistics.values()
    assert statistics.whitens_keys
    assert [same(*pair) for pair in steps] == [True, True, True, False]


# statistics per site


@pytest.mark.parametrize("keys", [{}, {"whiten_keys": True}, {"name": "ultraedit"}], ids=str)
def test_statistics_per_site_are_those_of_each_site_alone(keys):
    if "name" in keys:
        keys = keys | {"RunningMeanStd_mode": StatisticsMode.original}
    plan = [True, *[False] * 5]
    together = make_editor(statistics_per=StatisticsPer.site, **keys)
    shifts = edit(together, *plan)
    assert list(together.statistics) == NAMES
    for index, name in enumerate(NAMES):
        alone = make_editor(name, **keys)
        expected = edit(alone, *plan)
        assert all(same([step[index]], other) for step, other in zip(shifts, expected, strict=True))
        (mine,) = alone.statistics.values()
        found = together.statistics[name]
        assert (found.whitens, found.whitens_keys) == ("name" not in keys, "whiten_keys" in keys)
        for key, value in mine.state_dict().items():
            assert torch.equal(found.state_dict()[key], value), key
    assert not same(shifts[-1], edit(make_editor(**keys), *plan)[-1]), "pooling changes something"


def test_reports_and_spectrum_go_by_site(tmp_path):
    results = run(tmp_path / "run", tiny_words(PER_SITE))
    lines = numbers(tmp_path / "run")[1]
    steps = [line for line in lines if "statistics" in line]
    assert len(steps) == 5 and all(list(line["statistics"]) == NAMES for line in steps)
    assert [record["rows"] for record in steps[-1]["statistics"].values()] == 3 * [results["counts"]["tokens"]]
    assert list(results["spectrum"]) == NAMES


# checkpoints


@pytest.mark.parametrize("more", [[KEYS], [KEYS, PER_SITE]], ids=["shape", "site"])
def test_a_resumed_run_is_the_uninterrupted_one(more, tmp_path, monkeypatch):
    argv = tiny_words("checkpoint.every=1", "editor.whitening_every=2", *LONG, *more)
    seen = count_calls(monkeypatch, RunningStatistics, "inverse_root")
    run(tmp_path / "whole", argv)
    decomposed = len(seen)
    with monkeypatch.context() as patch:
        kill_after(patch, 7, lifelong_run.Run, "_write_step")
        with pytest.raises(Killed):
            run(tmp_path / "killed", argv)
    assert {name.partition("/")[0] for name in last_state(tmp_path / "killed")} >= {"root", "key_root"}
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'killed'}")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert len(seen) == 2 * decomposed


@pytest.mark.parametrize("call", [3, 4])
def test_a_failed_step_puts_decompositions_back(call, tmp_path, monkeypatch):
    argv = tiny_words("checkpoint.every=100", "editor.whitening_every=2", KEYS, *LONG)
    real, calls = StableEdit.shifts, iter(range(100))

    def bad(self, *args, **kwargs):
        found = real(self, *args, **kwargs)
        if next(calls) == call:
            found[1] = Shift(None, found[1].matrix() * float("inf"))
        return found

    run(tmp_path / "whole", argv)
    with monkeypatch.context() as patch, pytest.raises(NumericsError):
        patch.setattr(StableEdit, "shifts", bad)
        run(tmp_path / "failed", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'failed'}")
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "failed")


def test_names_in_a_default_checkpoint_are_as_before(tmp_path):
    run(tmp_path / "run", tiny_words("checkpoint.every=1", "editor.whitening_every=2", *LONG))
    found = {name for name in last_state(tmp_path / "run") if name.startswith(("statistics", "root", "key_root"))}
    expected = {f"statistics/(112, 48)/{name}" for name in ("n", "mean", "var", "cov_value")}
    assert found == expected | {f"root/(112, 48)/{name}" for name in ("vectors_VR", "gains_R", "rest", "age")}


# refusals


@pytest.mark.parametrize(
    ("editor", "words", "says"),
    [
        ("stableedit", [KEYS, "editor.RunningMeanStd_mode=original"], "editor.whiten_keys=true: .*original.* stable"),
        ("stableedit", [KEYS, "editor.RunningMeanStd_mode=none"], "editor.whiten_keys=true: .*none.* stable"),
        ("ultraedit", [KEYS], "editor.whiten_keys=true: editor=ultraedit"),
        ("malmen", [KEYS, "editor.RunningMeanStd_mode=stable"], "editor.whiten_keys=true: editor=malmen"),
        *[(name, [PER_SITE], f"editor.statistics_per=site: editor={name}") for name in LEARNED],
    ],
)  # fmt: skip
def test_refused_before_a_model_loads(editor, words, says, tmp_path, monkeypatch):
    monkeypatch.setattr(lifelong_run, "load_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=says) as caught:
        run(tmp_path / "run", tiny_words(*words, editor=editor))
    assert "\n" not in str(caught.value)


# stableedit_plus


def test_stableedit_plus_is_stableedit_with_other_settings(tmp_path):
    words = ["checkpoint.every=1", *LONG]
    plus = tiny_words(*words, editor="stableedit_plus")
    theirs, usual = (
        asdict(compose_config(tiny_words(*words, editor=e)).editor) for e in ("stableedit_plus", "stableedit")
    )
    differ = {key: value for key, value in theirs.items() if value != usual[key] and key != "name"}
    assert differ, "other settings"
    same_words = [f"editor.{key}={v.value if isinstance(v, Enum) else v}" for key, v in differ.items()]
    results = run(tmp_path / "plus", plus)
    run(tmp_path / "spelled", tiny_words(*words, *same_words))
    run(tmp_path / "usual", tiny_words(*words))
    plus_state, spelled, default = (last_state(tmp_path / name) for name in ("plus", "spelled", "usual"))
    assert results["config"]["editor"]["name"] == "stableedit_plus"
    for name in NAMES:
        assert torch.equal(plus_state[f"weight/{name}"], spelled[f"weight/{name}"])
        assert not torch.equal(plus_state[f"weight/{name}"], default[f"weight/{name}"])
