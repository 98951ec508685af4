"""Nothing silently wrong: a run directory has one owner, and what is read is what was written."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from config.check import ConfigError, RunError
from config.compose import compose_config
from editor import cache
from files import PART, kept, whole_file, whole_folder, write_json, write_whole
from lifelong import resume
from lifelong import run as lifelong_run
from lifelong.job import execute
from lifelong.status import held, read_status
from tests.test_resume import Killed, kill_after
from tests.tiny import MODELS, PROJECT, run_main, tiny_words

DOWNSTREAM = ["downstream.tasks=[sst]", "downstream.number_of_tests=4"]

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


@pytest.mark.parametrize("where", ["/proc/x", "x" * 300, "file/run"])
def test_a_run_directory_that_cannot_be_made_is_refused(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    refused = pytest.raises(ConfigError, match=rf"hydra\.run\.dir={where}: cannot be written \(.*\); name another")
    with refused, held(Path(where), resumes=False):
        pytest.fail("made")


def test_resume_of_a_run_that_is_still_at_work_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another process has it
        with pytest.raises(ConfigError, match="another run is at work there"):
            execute(compose_config(tiny_words(f"resume={tmp_path / 'run'}")), tmp_path / "run", [])
    assert not (tmp_path / "run" / "status.json").exists()


def test_a_run_that_is_done_is_shown_again(tmp_path, monkeypatch, capsys):
    run_dir, words = tmp_path / "run", tiny_words("num_seq=1")
    execute(compose_config(words), run_dir, words)
    table = capsys.readouterr().out
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run_dir.rglob("*.json*")}
    words = [*words, f"resume={run_dir}"]
    execute(compose_config(words), run_dir, words)
    assert capsys.readouterr().out == table
    monkeypatch.setattr(lifelong_run, "show", lambda *_: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(lifelong_run, "run", lambda *_: pytest.fail("it ran"))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
    with pytest.raises(KeyboardInterrupt):
        execute(compose_config(words), run_dir, words)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run_dir.rglob("*.json*")} == before
    assert read_status(run_dir)["state"] == "done"


def test_a_run_that_is_done_goes_on_where_more_is_asked_for(tmp_path):
    run_dir, words = tmp_path / "run", tiny_words("num_seq=1")
    execute(compose_config(words), run_dir, words)
    first = json.loads((run_dir / "results.json").read_text())
    words += [f"resume={run_dir}", "model_cache=true", f"model_cache_dir={tmp_path / 'saved'}"]
    execute(compose_config(words), run_dir, words)
    assert json.loads((run_dir / "results.json").read_text())["ES"] == first["ES"]
    assert (tmp_path / "saved" / "config.json").is_file()


@pytest.mark.parametrize("content", [None, "", "[]", "\x00" * 50])
def test_a_status_that_cannot_be_read_is_none(content, tmp_path):
    if content is not None:
        (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) == {}


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


def full(*_: object, **__: object) -> None:
    """What safetensors says of a full disk."""
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_the_numbers_are_there_when_the_model_cannot_be_saved(tmp_path, monkeypatch):
    words = tiny_words("model_cache=true", f"model_cache_dir={tmp_path / 'saved'}")
    with monkeypatch.context() as patch, pytest.raises(RunError, match=r"model_cache_dir=.*No space") as caught:
        patch.setattr(lifelong_run, "save_edited", full)
        lifelong_run.run(compose_config(words), tmp_path / "run")
    assert f"the numbers are in {tmp_path}/run; make room and save the model by resume=" in str(caught.value)
    kept = json.loads((tmp_path / "run" / "results.json").read_text())
    again = lifelong_run.run(compose_config([*words, f"resume={tmp_path / 'run'}"]), tmp_path / "unused")
    assert again["ES"] == kept["ES"] and (tmp_path / "saved" / "model.safetensors").is_file()


@pytest.mark.parametrize("key", ["eval.cache_dir", "editor.cache_dir"])
def test_a_cache_that_cannot_be_written_is_refused_at_the_start(key, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(lifelong_run, "open_session", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match=rf"{key}=.*/file/cache: cannot be written \(.*\); name another folder, null"):
        lifelong_run.run(compose_config(tiny_words(f"{key}={tmp_path / 'file' / 'cache'}")), tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "owner", "name"),
    [("eval.cache_dir", lifelong_run.Evaluation, "_write_before"), ("editor.cache_dir", cache, "save_file")],
)
def test_a_cache_that_fills_up_is_named(key, owner, name, tmp_path, monkeypatch):
    monkeypatch.setattr(owner, name, full)
    monkeypatch.setattr(cache, "IN_MEMORY", 0)  # else rows stay in memory while they are few
    with pytest.raises(RunError, match=rf"{key}={tmp_path}/cache: cannot be written \(.*No space left"):
        lifelong_run.run(compose_config(tiny_words(f"{key}={tmp_path / 'cache'}")), tmp_path / "run")


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path):
    """No simulation: the system itself refuses to write a checkpoint."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"hydra\.run\.dir=.*: cannot be written \(.*File too large"):
            lifelong_run.run(compose_config(tiny_words()), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.endswith(PART)]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_umask_says_who_may_read(mask, tmp_path):
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "results.json", "{}")
        with whole_folder(tmp_path / "folder") as fresh:
            write_whole(fresh / "state.json", "{}")
    finally:
        os.umask(before)
    for name in ("results.json", "folder/state.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def die(*_: object, **__: object) -> None:
    """Stands for SIGKILL."""
    raise Killed


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(Killed), whole_file(tmp_path / "run" / "edits.jsonl"):
            raise KeyboardInterrupt
        with pytest.raises(Killed), whole_folder(tmp_path / "run" / "checkpoints" / "00000001"):
            raise KeyboardInterrupt
        with pytest.raises(Killed):
            kept(tmp_path / "cache", "before-1", die)
    assert len(list(tmp_path.rglob(f".*{PART}"))) == 3
    with held(tmp_path / "run", resumes=True):
        assert not list((tmp_path / "run").rglob(f".*{PART}"))
    kept(tmp_path / "cache", "before-1", lambda folder: write_whole(folder / "x", ""))
    assert not list(tmp_path.rglob(f".*{PART}"))


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


OFFLINE = """
import sys, time
from pathlib import Path
from tests.torture.process import Child

folder, words = Path(sys.argv[1]), sys.argv[2:]
killed = Child([*words, "wandb.mode=offline", "checkpoint.every=1", "hydra.run.dir=run"], folder)
while killed.process.is_alive() and not list(folder.glob("run/checkpoints/0*")):
    time.sleep(0.01)
assert killed.end(0) == -9, killed.said()
for argv in (["resume=run"], ["-m", *words, "wandb.mode=disabled", "hydra.sweep.dir=sweep"]):
    assert (child := Child(argv, folder)).end() == 0, child.said()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_an_offline_run_asks_nobody(tmp_path):
    """Nor does one that is killed and resumed, nor a sweep's job, nor one without wandb; nor is HOME written to."""
    words = [word for word in tiny_words("num_seq=2") if word != "wandb.mode=disabled"]
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", calls, "-o", str(tmp_path / "trace")]
    command = [*trace, sys.executable, "-c", OFFLINE, str(tmp_path), *words]
    env = os.environ | {"HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outside = {path.relative_to(tmp_path / "home").parts[:2] for path in (tmp_path / "home").glob("*/*/*")}
    assert outside - {(".cache", "matplotlib")} == {(".cache", "stableedit")}, "the caches that keys name, and fonts"
    assert "AF_UNIX" in (told := (tmp_path / "trace").read_text()) and "AF_INET" not in told


@pytest.mark.parametrize("damage", ["lost", "cut", "changed", "garbled"])
def test_metrics_that_are_not_as_the_run_left_them_are_set_aside(damage, tmp_path, monkeypatch, caplog):
    argv = tiny_words("checkpoint.every=1", "downstream_eval_steps=1", *DOWNSTREAM)
    whole = lifelong_run.run(compose_config(argv), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 4, lifelong_run.Loop, "step")
        lifelong_run.run(compose_config(argv), tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    content = path.read_bytes()
    other = {
        "cut": content[:300],
        "changed": content.replace(b'"index": 0', b'"index": 9'),
        "garbled": b"\xff" * 9999,
    }
    path.unlink() if damage == "lost" else path.write_bytes(other[damage])
    again = lifelong_run.run(compose_config([*argv, f"resume={tmp_path / 'run'}"]), tmp_path / "unused")
    assert f"{path} was lost, cut or changed" in caplog.text
    assert path.with_name("metrics.jsonl.damaged").read_bytes() == other.get(damage, b"")
    assert {name: again[name] for name in ("ES", "GS", "LS", "metrics")} == {
        name: whole[name] for name in ("ES", "GS", "LS", "metrics")
    }
    assert [line["edits"] for line in again["downstream"]] == [line["edits"] for line in whole["downstream"]]
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()][-1] == "evaluate"


@pytest.mark.parametrize("content", ["[]", "7", '"x"', "null", "\x00", "[" * 9000])
def test_a_state_of_garbage_counts_as_damaged(content, tmp_path, caplog):
    folder = tmp_path / "checkpoints" / "00000001"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(content)
    assert resume.newest(tmp_path) is None and "is damaged" in caplog.text


def test_a_state_of_a_later_version_is_refused(tmp_path):
    folder = tmp_path / "checkpoints" / "00000001"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text('{"format": 99}')
    with pytest.raises(ConfigError, match="was written by an earlier version of this program or a later one"):
        resume.newest(tmp_path)


def test_a_checkpoint_of_an_earlier_version_is_refused_with_words(tmp_path):
    argv = stopped(tmp_path)
    for path in (tmp_path / "run" / "checkpoints").glob("*/state.json"):
        state = json.loads(path.read_text())
        path.write_text(json.dumps({"progress": {}, "config": {}, "files": {}, "sha256": state["tensors"]}))
    with pytest.raises(ConfigError, match="was written by an earlier version of this program"):
        lifelong_run.run(compose_config([*argv, f"resume={tmp_path / 'run'}"]), tmp_path / "unused")
