"""Sweeps: jobs that fail, die or are stopped, what they leave behind, launchers, and the division of a machine."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import submitit
import torch
import yaml
from filelock import FileLock
from hydra.core.utils import setup_globals
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf
from omegaconf import DictConfig, OmegaConf

from lifelong import job, sweep
from lifelong.job import child_env, jobs_at_once, lease, place_beside_others, threads_per_job
from lifelong.process import cores
from lifelong.status import Interrupted, held, new_status, read_status, tracked, write_status
from lifelong.sweep import USER_DEVICES
from model import resolve_device
from report.metrics import merit
from tests.tiny import PROJECT, run_main, tiny_words

WORDS = [word for word in tiny_words("eval.cache_dir=null", "report=false") if word != "editor.alpha=10"]
LAUNCHERS = PROJECT / "config" / "hydra" / "launcher"


def preset(name: str) -> dict[str, Any]:
    """A launcher's settings as its file has them."""
    return yaml.safe_load((LAUNCHERS / f"{name}.yaml").read_text())


def statuses(folder: Path) -> dict[str, dict[str, Any]]:
    """The status of every job by its folder's name."""
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/status.json")}


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    """`python main.py WORDS` as an own process group, threads not set; its output is one text."""
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(PROJECT / "main.py"), *words]
    return subprocess.Popen(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    )


def wait_for_job(folder: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    """The status of a job once it runs."""
    for _ in range(1200):
        status = read_status(folder)
        if status:
            return status
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    pytest.fail(f"{folder} has no status.json after a minute")


# one job


def test_status_of_a_run_that_ends_well(tmp_path):
    with tracked(tmp_path, ["a=1"], 3):
        running = read_status(tmp_path)
        assert (running["state"], running["pid"], running["ended"]) == ("running", os.getpid(), None)
    done = read_status(tmp_path)
    assert done == running | {"state": "done", "ended": done["ended"]} and done["ended"] >= done["started"]
    assert (done["overrides"], done["job"], done["error"], done["traceback"]) == (["a=1"], 3, None, None)
    assert {path.name for path in tmp_path.iterdir()} == {"status.json"}


def test_status_of_a_run_that_fails(tmp_path):
    with pytest.raises(RuntimeError), tracked(tmp_path, [], None):
        raise RuntimeError("no luck")
    failed = read_status(tmp_path)
    assert (failed["state"], failed["error"]) == ("failed", "RuntimeError: no luck")
    assert "Traceback" in failed["traceback"] and "test_status_of_a_run_that_fails" in failed["traceback"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_status_of_a_run_that_is_stopped(tmp_path, signum, code):
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as caught, tracked(tmp_path, [], None):
        signal.raise_signal(signum)
    assert caught.value.code == code and signal.getsignal(signum) is before
    assert read_status(tmp_path)["state"] == "interrupted" and "resume=" in read_status(tmp_path)["error"]


def test_a_single_run_has_a_status_and_still_one_line(tmp_path):
    done = run_main(*WORDS, "editor.alpha=nan", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    status = read_status(tmp_path / "run")
    assert status["state"] == "failed" and status["job"] is None and "editor.alpha=nan" in status["overrides"]
    assert "check_values" in status["traceback"] and status["traceback"].strip() in (
        (tmp_path / "run" / "main.log").read_text()
    )


def test_v_shows_the_resolved_configuration(tmp_path):
    done = run_main("-v", *WORDS, "editor.alpha=nan", "hydra.run.dir=run", cwd=tmp_path)
    assert "alpha: .nan" in done.stdout and "name: zsre" in done.stdout and "verbose: true" in done.stdout
    assert "verbose=true" in read_status(tmp_path / "run")["overrides"]


# shares of the machine


def test_a_gpu_is_leased_while_it_is_used(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    with place_beside_others(tmp_path, None, gpu=True), place_beside_others(tmp_path, None, gpu=True):
        assert taken == [0, 1]
        waits = threading.Thread(target=lambda: place_beside_others(tmp_path, None, gpu=True).__enter__(), daemon=True)
        waits.start()
        waits.join(timeout=0.5)
        assert waits.is_alive() and taken == [0, 1], "at most as many jobs as GPUs"
    waits.join(timeout=30)
    assert len(taken) == 3
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with place_beside_others(tmp_path, None, gpu=True):
        assert len(taken) == 3


def test_the_device_is_no_part_of_what_a_job_is(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)  # as its lease made it
    assert resolve_device("model_device", "auto") == torch.device("cuda:1"), "the configuration goes on saying auto"


@pytest.mark.parametrize(
    ("n_jobs", "available", "threads"), [(2, 16, 8), (3, 16, 5), (8, 2, 1), (-1, 16, 1), (-9, 16, 2), (1, 6, 6)]
)
def test_joblib_divides_the_threads(n_jobs, available, threads):
    assert threads_per_job(preset("joblib") | {"n_jobs": n_jobs}, available) == threads


def test_submitit_local_bounds_the_jobs():
    launcher = preset("submitit_local") | {"cpus_per_task": 4}
    assert (threads_per_job(launcher, 16), jobs_at_once(launcher, 16), jobs_at_once(launcher, 2)) == (4, 4, 1)
    assert jobs_at_once(preset("joblib"), 16) is None and jobs_at_once(preset("slurm"), 16) is None
    assert threads_per_job({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}, 16) is None


def test_the_users_threads_win():
    assert child_env(preset("slurm"), {})["OMP_NUM_THREADS"] == "8"
    assert child_env(preset("slurm"), {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"


def test_submitit_local_does_not_hide_the_gpus():
    local = preset("submitit_local")
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    assert "CUDA_VISIBLE_DEVICES" not in child_env(local, hidden | {USER_DEVICES: "all"})
    assert child_env(local, hidden | {USER_DEVICES: "2,3"})["CUDA_VISIBLE_DEVICES"] == "2,3"
    asked = child_env(local | {"gpus_per_node": 1}, {"CUDA_VISIBLE_DEVICES": "0", USER_DEVICES: "all"})
    assert asked["CUDA_VISIBLE_DEVICES"] == "0"


def test_places_are_bounded(tmp_path):
    inside, most = set(), []

    def work(name: int) -> None:
        with lease(tmp_path, 2):
            inside.add(name)
            most.append(len(inside))
            time.sleep(0.1)
            inside.remove(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(most) == 5 and max(most) == 2


# the sweep's value and end


def test_merit_is_the_mean_gain():
    results = {"ES": 0.7, "GS": 0.4, "LS": 0.3, "pre": {"ES": 0.1, "GS": 0.1, "LS": 0.4}}
    assert merit(results, results["pre"], "published") == pytest.approx((0.6 + 0.3 - 0.1) / 3)
    assert merit(results, None, "published") == pytest.approx((0.7 + 0.4 + 0.3) / 3)


@pytest.mark.parametrize(
    ("code", "stopped", "state", "error"),
    [
        (-9, False, "failed", "killed by signal 9 (SIGKILL)"),
        (-9, True, "failed", "killed by signal 9 (SIGKILL)"),
        (-15, True, "interrupted", "killed by signal 15 (SIGTERM)"),
        (3, False, "failed", "exited with status 3"),
    ],
)
@pytest.mark.parametrize("wrote", [True, False])
def test_a_job_without_a_last_word_gets_one(tmp_path, code, stopped, state, error, wrote):
    told = {"overrides": ["a=1"], "job": 5}
    if wrote:
        write_status(tmp_path, new_status(["a=1"], 5))
    (tmp_path / "output.log").write_text("".join(f"line {index}\n" for index in range(50)))
    status = job.settle(told, tmp_path, code, stopped=stopped)
    assert status == read_status(tmp_path)
    assert (status["state"], status["error"], status["overrides"], status["job"]) == (state, error, ["a=1"], 5)
    assert status["traceback"].splitlines() == [f"line {index}" for index in range(30, 50)] and status["ended"]


def test_jobs_whose_launcher_broke_are_accounted_for(tmp_path, capsys):
    """One still runs and is waited for, one is gone without a word, one never ran."""
    started = sweep.Sweep(tmp_path, report=False)
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        write_status(tmp_path / name, new_status([f"editor.alpha={name}", "same=1"], 0))
    code = "import sys, time; from filelock import FileLock; FileLock(sys.argv[1]).acquire(); print(); time.sleep(1)"
    words = [sys.executable, "-c", code, str(tmp_path / "0" / ".lock")]
    sleeper = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert sleeper.stdout and sleeper.stdout.readline()
    (tmp_path / "2" / ".hydra").mkdir(parents=True)
    (tmp_path / "2" / ".hydra" / "overrides.yaml").write_text("- editor.alpha=2\n- same=1\n")
    assert started.finish() == 1 and sleeper.wait(timeout=60) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[1:4]] == [[name, name] for name in "012"], "job, editor.alpha"
    assert printed[4:7] == [
        "0: failed: its process ended without a word",
        "1: failed: its process ended without a word",
        "2: failed: died before it started",
    ]
    assert printed[7].startswith("0 of 3 jobs done; ")


def test_a_report_that_fails_hides_nothing(tmp_path, monkeypatch, capsys, caplog):
    def fail(*_):
        raise RuntimeError("no figures")

    monkeypatch.setattr("report.make", fail)
    started = sweep.Sweep(tmp_path, report=True)
    (tmp_path / "0").mkdir()
    write_status(tmp_path / "0", new_status([], 0) | {"state": "done"})
    assert started.finish() == 0
    assert "1 of 1 jobs done; " in capsys.readouterr().out and "no figures" in caplog.text


@pytest.mark.parametrize(("name", "part"), [("joblib", "joblib"), ("slurm", "submitit")])
def test_a_plugin_that_is_missing_is_named(monkeypatch, tmp_path, name, part):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    setup_globals()
    hydra = {"launcher": preset(name), "runtime": {"choices": {"hydra/launcher": name}}}
    hydra |= {"sweep": {"dir": str(tmp_path / "sweep")}}
    with pytest.raises(SystemExit, match=f"error: hydra/launcher={name}: .*sh run.sh install {part}"):
        sweep.SweepStart().on_multirun_start(OmegaConf.create({"hydra": hydra, "report": False}))
    assert f"# [{part}]" in (PROJECT / "requirements-extra.txt").read_text() and sweep.current is None


def sweep_config(folder: Path, launcher: str = "joblib", **keys: Any) -> DictConfig:
    """What Hydra hands to SweepStart, of the keys that it reads."""
    hydra = {"launcher": preset(launcher), "sweeper": {"params": None}, "job": {"num": "???"}}
    hydra |= {"overrides": {"task": ["editor.alpha=1,2"]}, "sweep": {"dir": str(folder), "subdir": "${hydra.job.num}"}}
    found = OmegaConf.create({"hydra": hydra, "report": False})
    for key, value in keys.items():
        OmegaConf.update(found, key.replace("__", "."), value)
    return found


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"hydra__sweep__dir": "{}/file/x"}, "hydra.sweep.dir={}/file/x: cannot be written (.*); name another folder"),
        ({"hydra__sweep__dir": "${nosuch}"}, "hydra.sweep.dir: Interpolation key 'nosuch' not found"),
        ({"hydra__sweep__subdir": "${nosuch}"}, "hydra.sweep.subdir: Interpolation key 'nosuch' not found"),
        ({"hydra__launcher__n_jobs": "abc"}, "hydra.launcher.n_jobs=abc: must be a whole number above 0"),
        ({"hydra__launcher__n_jobs": 0}, "hydra.launcher.n_jobs=0: must be a whole number above 0"),
        (
            {"launcher": "submitit_local", "hydra__launcher__cpus_per_task": -1},
            "hydra.launcher.cpus_per_task=-1: must be a whole number above 0",
        ),
    ],
)
def test_bad_words_are_one_line_before_any_job(keys, says, tmp_path):
    (tmp_path / "file").touch()
    keys = {key: value.format(tmp_path) if "{}" in str(value) else value for key, value in keys.items()}
    with pytest.raises(SystemExit) as refused:
        sweep.SweepStart().on_multirun_start(sweep_config(tmp_path / "sweep", **keys))
    assert re.fullmatch("error: " + says.replace("{}", str(tmp_path)), str(refused.value)) and sweep.current is None


def test_a_folder_is_for_one_sweep_at_a_time_and_for_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "current", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    config, start = sweep_config(tmp_path), sweep.SweepStart().on_multirun_start
    start(config)
    assert sweep.current is not None and sweep.current.finish() == 0
    OmegaConf.save(config, tmp_path / "multirun.yaml")  # as Hydra does
    (tmp_path / "0").mkdir()
    write_status(tmp_path / "0", new_status([], 0) | {"state": "done"})
    with held(tmp_path / "0", resumes=True), pytest.raises(SystemExit, match=f"{tmp_path}/0 is at work; wait"):
        start(config)
    for other in ({"hydra__sweep__subdir": "x"}, {"hydra__sweeper__params": {"a": 1}}, {"hydra__overrides__task": []}):
        with pytest.raises(SystemExit, match=f"hydra.sweep.dir={tmp_path}: holds another sweep"):
            start(sweep_config(tmp_path, **other))
    start(sweep_config(tmp_path, hydra__launcher__n_jobs=3))  # how its jobs are started may differ
    with pytest.raises(SystemExit, match=f"hydra.sweep.dir={tmp_path}: {tmp_path} is at work; wait"):
        start(config)
    assert sweep.current.finish() == 0


def test_a_sweep_that_goes_on_runs_what_is_not_done(tmp_path, monkeypatch, capsys):
    hydra = sweep_config(tmp_path, "submitit_local").hydra
    told_of = []
    OmegaConf.update(hydra, "runtime", {"output_dir": str(tmp_path), "cwd": "/"}, force_add=True)
    OmegaConf.update(hydra, "overrides.task", ["a=1"])
    hydra = OmegaConf.merge(hydra, {"job_logging": {}, "verbose": False, "job": {"num": 0}})
    monkeypatch.setattr("lifelong.job.HydraConfig.get", lambda: hydra)
    monkeypatch.setattr(job, "run_child", lambda told, *_: told_of.append(told) or 0)
    of_the_sweep = FileLock(tmp_path / ".lock")
    of_the_sweep.acquire()
    cfg = OmegaConf.create({"model_device": "auto", "resume": None})
    for state, words in ((None, None), ("done", ["a=1"]), ("interrupted", ["a=1", "resume=x"]), ("failed", ["a=1"])):
        if state:
            write_status(tmp_path, new_status(words, 0) | {"state": state})
        job.sweep_job(cfg)
    assert [told["config"]["resume"] for told in told_of] == [None, str(tmp_path), str(tmp_path)]
    write_status(tmp_path, new_status(["a=2"], 0) | {"state": "done"})
    with pytest.raises(SystemExit):
        job.sweep_job(cfg)
    assert f"error: hydra.sweep.subdir: {tmp_path} holds another job" in capsys.readouterr().err
    assert read_status(tmp_path)["overrides"] == ["a=2"], "and it is left as it was"
    of_the_sweep.release()


# what ends with what


STANDS_IN = """
import sys, threading, time
from lifelong.job import end_with_parent
print("told", sys.stdin.readline(), flush=True)
threading.Thread(target=end_with_parent, daemon=True).start()
time.sleep(60)
"""


def stand_in(monkeypatch) -> None:
    """Have run_child start a process that does nothing but end as a job does."""
    plain = job.start_python
    monkeypatch.setattr(job, "start_python", lambda *_, **options: plain("-c", STANDS_IN, **options | {"cwd": PROJECT}))


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_ends_when_the_process_of_its_sweep_is_gone(launcher, tmp_path, monkeypatch):
    stand_in(monkeypatch)
    of_the_sweep = FileLock(tmp_path / ".lock", thread_local=False)
    of_the_sweep.acquire()
    threading.Timer(1, of_the_sweep.release).start()  # as its death does
    monkeypatch.setattr(sweep, "current", object())  # this process's signals stay as they are
    began = time.monotonic()
    assert job.run_child({}, tmp_path, tmp_path, preset(launcher)) == -signal.SIGTERM
    assert 1 <= time.monotonic() - began < 30


def test_a_job_ends_when_the_process_that_started_it_is_killed(tmp_path):
    code = "import sys, time; from lifelong.process import start_python; import subprocess\n"
    code += "child = start_python('-c', sys.argv[1], stdin=subprocess.PIPE)\n"
    code += "print(child.pid, file=child.stdin, flush=True); time.sleep(60)"
    worker = subprocess.Popen([sys.executable, "-c", code, STANDS_IN], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None and worker.stdout.readline().startswith("told")
    worker.kill()
    worker.communicate(timeout=30)  # its end of stdout is closed when the job is gone too
    assert worker.returncode == -signal.SIGKILL


@pytest.mark.parametrize("path", sorted((PROJECT / "config" / "hydra").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_a_preset_has_a_comment(path):
    for line in path.read_text().splitlines():
        assert "#" in line or re.fullmatch(r"\s*\w+:", line), line


def test_slurm_takes_every_key_of_the_preset(tmp_path, monkeypatch):
    """As the plugin hands them to submitit, up to the script for sbatch; an srun that does nothing is enough."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    keys = preset("slurm") | {"name": "main", "partition": "gpu"}
    assert keys.keys() - {"_target_"} <= {field.name for field in dataclasses.fields(SlurmQueueConf)}
    executor = submitit.AutoExecutor(folder=tmp_path, cluster="slurm", slurm_max_num_timeout=keys["max_num_timeout"])
    plain = {field.name for field in dataclasses.fields(BaseQueueConf)}
    passed = {
        key: value for key, value in keys.items() if key not in ("_target_", "submitit_folder", "max_num_timeout")
    }
    executor.update_parameters(**{key if key in plain else f"slurm_{key}": value for key, value in passed.items()})
    script = executor._executor._make_submission_file_text("command", "uid")
    for line in ("--partition=gpu", "--gpus-per-node=1", "--cpus-per-task=8", "--mem=64GB", "--time=1440"):
        assert f"#SBATCH {line}" in script.splitlines()


# whole sweeps


def test_presets_are_ours(tmp_path):
    for word, expected in (("hydra/launcher=joblib", preset("joblib")), ("hydra/launcher=slurm", preset("slurm"))):
        done = run_main(word, "--cfg", "hydra", cwd=tmp_path)
        assert done.returncode == 0 and "deprecated" not in done.stderr, done.stderr
        assert yaml.safe_load(done.stdout)["hydra"]["launcher"] == expected


def test_the_experiment_that_is_a_sweep(tmp_path):
    """Its jobs are all refused, which takes no time; its grid, and a key of it from the command line."""
    words = ["experiment=sweep_alpha_preheat", "num_seq=0", "report=false", "hydra.sweep.dir=sweep"]
    done = run_main(*words, "editor.alpha=1,7", cwd=tmp_path)
    assert done.returncode == 1 and "Joblib.Parallel(n_jobs=2" in done.stdout
    assert done.stdout.count("failed: ConfigError: num_seq=0") == 2 * 6, "as it happens, and at the end"
    grid = {tuple(status["overrides"][:2]) for status in statuses(tmp_path / "sweep").values()}
    assert len(grid) == 6
    assert {first for first, _ in grid} == {"editor.alpha=1", "editor.alpha=7"}
    assert {second for _, second in grid} == {f"editor.preheat_mode={mode}" for mode in ("start", "middle", "none")}


@pytest.mark.slow
def test_joblib_one_fails_one_is_killed_one_is_done(tmp_path):
    words = ["hydra/launcher=joblib", "hydra.sweep.dir=sweep", "report=true", "editor.alpha=1,nan,10"]
    process = start("-m", *[word for word in WORDS if not word.startswith("report=")], *words, cwd=tmp_path)
    pid = wait_for_job(tmp_path / "sweep" / "0", process)["pid"]
    environ = Path(f"/proc/{pid}/environ").read_text().split("\0")
    os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    found = statuses(tmp_path / "sweep")
    assert {name: status["state"] for name, status in found.items()} == {"0": "failed", "1": "failed", "2": "done"}
    assert found["0"]["error"] == "killed by signal 9 (SIGKILL)" and found["0"]["pid"] == pid
    assert found["1"]["error"].startswith("ConfigError: editor.alpha=nan") and "Traceback" in found["1"]["traceback"]
    assert [status["job"] for _, status in sorted(found.items())] == [0, 1, 2]
    assert "Traceback" in (tmp_path / "sweep" / "1" / "main.log").read_text()
    assert "written to" in (tmp_path / "sweep" / "2" / "output.log").read_text()
    assert f"OMP_NUM_THREADS={max(1, cores() // 2)}" in environ
    assert "1 of 3 jobs done" in output
    assert re.search(r"^0: failed: killed by signal 9 \(SIGKILL\)$", output, flags=re.MULTILINE)
    assert re.search(r"^1: failed: ConfigError: editor.alpha=nan", output, flags=re.MULTILINE)
    assert re.search(r"^ +0 +1 .* failed$", output, flags=re.MULTILINE), "its line in the table"
    assert list((tmp_path / "sweep").rglob("report.html")), output


@pytest.mark.slow
def test_a_joblib_sweep_that_is_killed_takes_its_jobs_along(tmp_path):
    words = ["hydra/launcher=joblib", "hydra.sweep.dir=sweep", "editor.alpha=1,10"]
    process = start("-m", *WORDS, *words, cwd=tmp_path)
    folders = [tmp_path / "sweep" / name for name in "01"]
    for folder in folders:
        assert wait_for_job(folder, process)["state"] == "running"
    process.kill()
    for folder in folders:
        for _ in range(300):
            if sweep.free(folder / ".lock"):
                break
            time.sleep(0.1)
        assert read_status(folder)["state"] == "interrupted", "it had time to say so"
        assert "stopped by SIGTERM; go on with: python main.py resume=" in read_status(folder)["error"]
    output, _ = process.communicate(timeout=60)  # it is open for as long as a worker is there
    assert "not started" not in output


@pytest.mark.slow
def test_submitit_local(tmp_path):
    words = ["hydra/launcher=submitit_local", "hydra.sweep.dir=sweep", "model_cache=true"]
    process = start("-m", *WORDS, *words, "editor.alpha=1,10", "model_cache_dir=saved/${hydra:job.num}", cwd=tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    found = statuses(tmp_path / "sweep")
    assert {name: status["state"] for name, status in found.items()} == {"0": "done", "1": "done"}
    for name, alpha in (("0", 1.0), ("1", 10.0)):
        results = json.loads((tmp_path / "sweep" / name / "results.json").read_text())
        assert results["config"]["editor"]["alpha"] == alpha
        assert (tmp_path / "saved" / name / "model.safetensors").is_file(), "what only the launcher knows is resolved"
    assert "2 of 2 jobs done" in output


@pytest.mark.slow
def test_one_after_another_stopped_and_resumed(tmp_path):
    words = ["checkpoint.every=1", "hydra.sweep.dir=sweep", "editor.alpha=1,10", "hydra.mode=MULTIRUN"]
    words += ["model_cache=true", "model_cache_dir=saved/${hydra:job.num}"]
    process = start(*WORDS, *words, cwd=tmp_path)
    wait_for_job(tmp_path / "sweep" / "0", process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 143, output
    found = statuses(tmp_path / "sweep")
    assert {name: status["state"] for name, status in found.items()} == {"0": "interrupted", "1": "interrupted"}
    assert found["1"]["error"] == "not started: the sweep was stopped" and "0 of 2 jobs done" in output
    assert not (tmp_path / "sweep" / ".stop").exists()
    with held(tmp_path / "sweep" / "1", resumes=True):
        refused = run_main("resume=sweep/1", cwd=tmp_path)
    assert refused.returncode == 1 and "sweep/1: another run is at work there" in refused.stderr
    assert statuses(tmp_path / "sweep") == found, "and nothing is changed"
    done = run_main("resume=sweep/1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "saved" / "1" / "model.safetensors").is_file(), "the number that it had"
    status = read_status(tmp_path / "sweep" / "1")
    assert status["state"] == "done" and "editor.alpha=10" in status["overrides"]
    results = (tmp_path / "sweep" / "1" / "results.json").read_bytes()
    assert json.loads(results)["config"]["editor"]["alpha"] == 10
    again = run_main(*WORDS, *words, cwd=tmp_path)
    assert again.returncode == 0 and "2 of 2 jobs done" in again.stdout, again.stderr
    assert (tmp_path / "sweep" / "1" / "results.json").read_bytes() == results, "what is done is not run again"
