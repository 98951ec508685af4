"""Ridge editors beyond the paper: the key scatter behind key_ridge, and editor=stableedit_plus."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from enum import Enum
from typing import Any

import pytest
import torch
from torch import Tensor

from config.choices import StatisticsMode
from config.compose import compose_config
from config.editors import RidgeConfig
from data.batches import step_batches
from editor.base import Editor
from editor.capture import Rows
from editor.registry import editor_class
from editor.ridge import Shift
from editor.sites import find_sites
from editor.stableedit import StableEdit
from nets import RunningStatistics
from tests.reference_cases import relative
from tests.test_resume import last_state, run
from tests.tiny import SITES, load_tiny, tiny_edits, tiny_tokenizer, tiny_words

D_K, D_V = 7, 5
CPU = torch.device("cpu")
STEP = 8  # edits of a step
NAMES = SITES["tiny-llama"]
LONG = ["num_seq=6", "num_seq_zsre=1"]  # past d_k + 1 rows in the second step


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


def make_editor(*sites: str, **keys: Any) -> Editor:
    """A ridge editor on a tiny model, with a step size whose shifts leave the weights as they are.

    So editors with different settings see the same rows in every step.
    """
    usual = {"name": "stableedit", "RunningMeanStd_mode": StatisticsMode.stable, "alpha": 10.0, "lr": 1e-20}
    cfg, model = RidgeConfig(**(usual | keys)), load_tiny("tiny-llama")
    found = find_sites(model, list(sites or NAMES), masters=False)
    return editor_class(cfg.name)(cfg, model, found)


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

    def shifts(self, watch, *, warm_up):
        seen.append([self.cache.gather(index) for index in range(len(self.sites))])
        return real(self, watch, warm_up=warm_up)

    monkeypatch.setattr(StableEdit, "shifts", shifts)
    return seen


def test_key_scatter_is_merged_exactly():
    blocks = blocks_of(1, 13, 2, 40, 100)
    rows_NK = torch.cat(blocks)[:, :D_K].double()
    centered_NK = rows_NK - rows_NK.mean(0)
    assert relative(pooled(blocks).scatter_KK, centered_NK.T @ centered_NK) < 1e-6
    assert relative(pooled(blocks[::-1]).scatter_KK, centered_NK.T @ centered_NK) < 1e-6


def test_key_scatter_is_copied_and_kept_only_where_asked_for():
    statistics = pooled(blocks_of(40))
    kept, loaded = deepcopy(statistics), pooled([])
    loaded.load_state_dict(statistics.state_dict())
    statistics.add(*blocks_of(9)[0].split((D_K, D_V), dim=1))
    for twin in (kept, loaded):
        assert torch.equal(twin.scatter_KK, pooled(blocks_of(40)).scatter_KK)
        twin.add(*blocks_of(9)[0].split((D_K, D_V), dim=1))
        assert torch.equal(twin.scatter_KK, statistics.scatter_KK)
    assert pooled([], key_covariance=False).state_dict().keys() == statistics.state_dict().keys() - {"cov_key"}


def test_names_in_a_default_checkpoint_are_as_before(tmp_path):
    run(tmp_path / "run", tiny_words("checkpoint.every=1", *LONG))
    found = {name for name in last_state(tmp_path / "run") if name.startswith("statistics")}
    assert found == {f"statistics/(112, 48)/{name}" for name in ("n", "mean", "var", "cov_value")}


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
