"""A run takes its directory before anything is written there, and begins when what it needs to go on is on the disk."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.conf import HydraConf, RunDir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from config.compose import compose_config
from glue_eval import evaluate
from lifelong.status import held
from lifelong.sweep import SweepStart
from tests.tiny import tiny_words


def test_what_hydra_wrote_is_on_the_disk_before_the_run_begins(tmp_path, monkeypatch):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- num_seq=3\n")
    synced = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    with held(tmp_path, resumes=False):
        assert synced == [str(tmp_path / ".hydra" / "overrides.yaml")]


@pytest.mark.parametrize(
    ("holds", "resume", "words"),
    [
        ("results.json", None, "holds another run; go on with it by resume="),
        ("overrides.yaml", "run", "resume=run: was stopped before it began: no status.json; start it again"),
    ],
)
def test_a_directory_is_refused_before_hydra_writes(holds, resume, words, tmp_path, monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    (tmp_path / holds).write_text("")
    asked = OmegaConf.create({"resume": resume, "hydra": HydraConf(run=RunDir(str(tmp_path)))})
    with pytest.raises(SystemExit, match=f"error: .*{words}"):
        SweepStart().on_run_start(asked)


def test_what_is_copied_from_a_cache_is_on_the_disk(tmp_path, monkeypatch):
    cfg, model, synced = compose_config(tiny_words("eval.cache_dir=cache")), Any, []
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "base_glue.json").write_text("{}")
    monkeypatch.setattr(evaluate, "_key", lambda *_: "x")
    monkeypatch.setattr(evaluate, "kept", lambda *_: tmp_path / "kept")
    monkeypatch.setattr("os.fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    evaluate.abilities_before(cfg, SimpleNamespace(folder=tmp_path / "run"), model, model)
    assert (tmp_path / "run" / "base_glue.json").read_text() == "{}" and "base_glue.json" in "".join(synced)
