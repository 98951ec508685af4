"""Nothing silently wrong: a run directory has one owner, and what is read is what was written."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from config.check import ConfigError
from config.compose import compose_config
from files import write_json
from lifelong import run as lifelong_run
from lifelong.status import held
from tests.tiny import MODELS, PROJECT, run_main, tiny_words

# a run directory belongs to one run


def test_a_directory_that_holds_another_run_is_refused(tmp_path):
    assert run_main(*tiny_words("hydra.run.dir=run"), cwd=tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = run_main(*tiny_words("hydra.run.dir=run", "num_seq=1"), cwd=tmp_path)
    assert done.returncode == 1 and "holds another run; go on with it by resume=" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_two_runs_in_one_directory_are_refused(tmp_path):
    refused = pytest.raises(ConfigError, match="another run is at work there")
    lock = FileLock(tmp_path / "run" / ".lock")  # as another process has it
    with held(tmp_path / "run", resumes=False), held(tmp_path / "run", resumes=False):
        pass  # its owner may ask for it twice; the lock goes with its owner
    with lock, refused, held(tmp_path / "run", resumes=True):
        pytest.fail("two at once")


def test_a_refused_resume_leaves_the_run_as_it_was(tmp_path):
    assert run_main(*tiny_words("hydra.run.dir=run", "checkpoint.every=1"), cwd=tmp_path).returncode == 0
    kept = [*(tmp_path / "run" / ".hydra").iterdir(), tmp_path / "run" / "status.json"]
    before = [path.read_bytes() for path in kept]
    done = run_main("resume=run", "num_seq=2", cwd=tmp_path)
    assert done.returncode == 1 and "num_seq was 3, is 2" in done.stderr
    assert [path.read_bytes() for path in kept] == before
    assert run_main("resume=run", cwd=tmp_path).returncode == 0, "the plain resume still goes on"


# what is on the disk is what was written


@pytest.mark.parametrize("damage", ["lines.jsonl", "totals.json"])
def test_a_shared_cache_that_was_cut_is_measured_anew(damage, tmp_path):
    words = [*tiny_words(), f"eval.cache_dir={tmp_path / 'cache'}"]
    first = lifelong_run.run(compose_config(words), tmp_path / "first")
    (file,) = (tmp_path / "cache").glob(f"before-*/{damage}")
    file.write_text(file.read_text()[:40] if damage == "lines.jsonl" else file.read_text().replace("0.", "0.9", 1))
    second = lifelong_run.run(compose_config(words), tmp_path / "second")
    assert (second["pre"], second["metrics"]) == (first["pre"], first["metrics"])


@pytest.mark.parametrize("name", ["model.layers.2.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"])
def test_a_model_that_lacks_a_weight_is_refused(name, tmp_path):
    shutil.copytree(MODELS / "tiny-llama", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file({key: value for key, value in weights.items() if key != name}, tmp_path / "model" / "model.safetensors")
    words = tiny_words(f"model.name_or_path={tmp_path / 'model'}")
    with pytest.raises(ConfigError, match=rf"its weights lack {re.escape(name)}"):
        lifelong_run.run(compose_config(words), tmp_path / "run")


def test_weights_in_a_pickle_are_refused(tmp_path):
    shutil.copytree(MODELS / "tiny-llama", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot be opened \(.*safetensors"):
        lifelong_run.run(compose_config(tiny_words(f"model.name_or_path={tmp_path / 'model'}")), tmp_path / "run")


def test_the_numbers_are_there_when_the_model_cannot_be_saved(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lifelong_run, "save_edited", full)
    words = tiny_words("model_cache=true", f"model_cache_dir={tmp_path / 'saved'}")
    with pytest.raises(OSError, match="No space"):
        lifelong_run.run(compose_config(words), tmp_path / "run")
    assert "ES" in json.loads((tmp_path / "run" / "results.json").read_text())


def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    words = tiny_words("model_cache=true", f"model_cache_dir={tmp_path / 'file' / 'saved'}")
    with pytest.raises(ConfigError, match="model_cache_dir=.*cannot be made"):
        lifelong_run.run(compose_config(words), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def stopped(tmp_path: Path) -> list[str]:
    """A finished run with two checkpoints, on a model folder of its own; its words."""
    shutil.copytree(MODELS / "tiny-llama", tmp_path / "model")
    argv = tiny_words("checkpoint.every=1", f"model.name_or_path={tmp_path / 'model'}")
    lifelong_run.run(compose_config(argv), tmp_path / "run")
    return argv


def test_an_edited_state_counts_as_damaged(tmp_path, caplog):
    argv = stopped(tmp_path)
    (*_, newest) = sorted((tmp_path / "run" / "checkpoints").iterdir())
    state = json.loads((newest / "state.json").read_text())
    state["state"]["loop"]["edits"] = 8
    (newest / "state.json").write_text(json.dumps(state))
    results = lifelong_run.run(compose_config([*argv, f"resume={tmp_path / 'run'}"]), tmp_path / "unused")
    assert "state.json does not have the sha256 that it names" in caplog.text
    assert results["counts"]["edits"] == 24


def test_other_weights_at_resume_are_refused(tmp_path):
    argv = stopped(tmp_path)
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.0.mlp.up_proj.weight"] += 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="the weights of .* are not those that the run started with"):
        lifelong_run.run(compose_config([*argv, f"resume={tmp_path / 'run'}"]), tmp_path / "unused")


def test_results_with_a_number_that_is_not_finite_are_written(tmp_path):
    write_json(tmp_path / "results.json", {"ES": math.nan, "more": [1.0, -math.inf], "deep": {"x": 2.5}})
    assert json.loads((tmp_path / "results.json").read_text()) == {"ES": None, "more": [1.0, None], "deep": {"x": 2.5}}


@pytest.mark.parametrize("value", ["nan", "inf", "1e400"])
def test_every_number_must_be_finite(value, tmp_path):
    with pytest.raises(ConfigError, match=r"editor\.reg_coef=(nan|inf): must be a finite number"):
        lifelong_run.run(compose_config(tiny_words(f"editor.reg_coef={value}", editor="malmen")), tmp_path / "run")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_an_offline_run_asks_nobody(tmp_path):
    words = [word for word in tiny_words("num_seq=1", "wandb.mode=offline") if word != "wandb.mode=disabled"]
    trace = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(tmp_path / "trace")]
    done = subprocess.run([*trace, sys.executable, PROJECT / "main.py", *words], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert "AF_INET" not in (tmp_path / "trace").read_text()


def test_a_checkpoint_of_an_earlier_version_is_refused_with_words(tmp_path):
    argv = stopped(tmp_path)
    for path in (tmp_path / "run" / "checkpoints").glob("*/state.json"):
        state = json.loads(path.read_text())
        path.write_text(json.dumps({"progress": {}, "config": {}, "files": {}, "sha256": state["tensors"]}))
    with pytest.raises(ConfigError, match="was written by an earlier version of this program"):
        lifelong_run.run(compose_config([*argv, f"resume={tmp_path / 'run'}"]), tmp_path / "unused")
