"""The claims' driver: plan, statistics, choice, and going on after a stop."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from claims.__main__ import main
from claims.evidence import mean, paired, slope
from claims.inputs import write_data
from claims.page import Page
from claims.plan import FULL, PARTS, SHORT, Job, Scale, Setting, chosen_settings, settings
from claims.runner import Runner, state
from config.check import ConfigError, check_override_names, check_values
from config.compose import compose_config
from lifelong.process import Processes, cores
from lifelong.status import write_status
from report.load import load_run
from tests.claims_runs import made_up
from tests.test_run_sh import PROGRAM, installed_and_run, tree, whole_tree  # noqa: F401  two fixtures
from tests.tiny import MODELS, SITES

SCALES = pytest.mark.parametrize("scale", [FULL, SHORT], ids=lambda scale: scale.name)


# the plan


@SCALES
def test_every_run_of_the_plan_composes(scale, tmp_path):
    for setting in settings(scale).values():
        runner = Runner(scale, tmp_path)
        jobs = [] if setting.tuned_as else runner.sweep(setting)
        point = f"editor.lr={(setting.tuned_as or setting).lr[0]:g}"
        long = runner.final(setting, point, 0, knowns=True)
        for job in [*jobs, long]:
            check_override_names(job.words)
        for job in [*jobs[:1], long]:  # the other points differ in a number
            cfg = compose_config(list(job.words))
            check_values(cfg)
            assert cfg.dataset.n_edits == scale.n_edits
            held_out = cfg.num_seq * cfg.dataset.n_edits == (scale.tune_edits if job is not long else 0)
            assert held_out or cfg.num_seq == scale.num_seq, "YAML and Scale say the same"
            assert cfg.num_seq_zsre * cfg.dataset.n_edits == scale.warm_up


@SCALES
def test_each_setting_has_the_same_budget(scale, tmp_path):
    there = settings(scale)
    tuned = [setting for setting in there.values() if setting.tuned_as is None]
    assert {len(Runner(scale, tmp_path).sweep(setting)) for setting in tuned} == {scale.points}
    for setting in there.values():
        if setting.tuned_as:
            assert setting.tuned_as.lr and not setting.lr and there[setting.tuned_as.name] == setting.tuned_as


def test_every_part_is_made_of_settings():
    names = {name for part in PARTS.values() for name in part.settings}
    assert names == set(settings(FULL)), "none is missing, none is run for nothing"
    assert set(settings(SHORT)) < names
    for part in PARTS.keys() - {"precision"}:
        assert len(chosen_settings(SHORT, [part])) >= 2, "the short run has something of each part"


def test_runs_differ_in_what_they_compare(tmp_path):
    tuned = [setting for setting in settings(FULL).values() if setting.tuned_as is None]
    jobs = [job for setting in tuned for job in Runner(FULL, tmp_path).sweep(setting)]
    assert len({job.path for job in jobs}) == len({job.words for job in jobs}) == len(jobs)


def test_records_are_held_out_and_seeds_differ(tmp_path):
    write_data(tmp_path, FULL)
    files = {path.stem: path.read_text().splitlines() for path in (tmp_path / "data").iterdir()}
    assert len(files["train"]) == FULL.warm_up and len(files["tune"]) == FULL.tune_edits
    assert not set(files["train"]) & set(files["tune"])
    assert len(files["eval_0"]) == len(set(files["eval_0"])) == 10_000
    assert files["eval_0"] != files["eval_1"]
    for seed in range(FULL.seeds):
        assert not set(files[f"eval_{seed}"]) & set(files["train"] + files["tune"])
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    write_data(tmp_path, FULL)
    assert again == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}


def test_too_few_records_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="102500 records are wanted, but there are only"):
        write_data(tmp_path, Scale("x", "claims_base", 100, 1000, 1000, 1500, 300, points=4, seeds=1))


# statistics


def test_mean_and_slope_and_pairs():
    assert mean(pd.Series([1.0])) is None
    found = mean(pd.Series([1.0, 2.0, 3.0]))
    assert found.value == 2 and found.low == pytest.approx(2 - 4.3026527 / 3**0.5)
    curves = pd.DataFrame({"seed": [0] * 4 + [1] * 4, "x": [*range(4)] * 2, "y": [0.1, 1.0, 2.1, 3.0, 5, 6.1, 7, 8.1]})
    line = slope(curves, "x", "y")
    assert line.low < 1.0 < line.high and line.value == pytest.approx(1.0, abs=0.05)
    assert slope(curves[:0], "x", "y") is None and slope(curves[:3].assign(x=1), "x", "y") is None
    one = pd.DataFrame({"ES": [i / 10 for i in range(10)]}, index=range(10))
    other = pd.DataFrame({"ES": [i / 10 - 0.1 for i in range(5, 15)]}, index=range(5, 15))
    assert paired(one, other, ("ES",)).value == pytest.approx(0.1) and paired(one, other, ("ES",)).n == 5
    assert paired(one, other, ("GS",)) is None


# the choice


@pytest.fixture
def setting() -> Setting:
    return Setting("a", "A", "", (1.0, 2.0, 3.0))


def test_the_best_mean_gain_is_chosen(setting, tmp_path):
    runner = Runner(SHORT, tmp_path)
    jobs = runner.sweep(setting)
    assert runner.choice(setting) is None
    made_up(tmp_path, jobs[0], {"ES": 0.6})
    made_up(tmp_path, jobs[1], {"ES": 0.5, "GS": 0.5})
    assert runner.choice(setting) is None, "a point is missing"
    made_up(tmp_path, jobs[2], {"ES": 0.9, "LS": 0.0})
    found = runner.choice(setting)
    assert found.point == "editor.lr=2" and not found.edge
    assert found.scores["lr_2"] == pytest.approx((0.45 + 0.45 - 0.1) / 3)
    made_up(tmp_path, jobs[2], {"ES": 0.9, "LS": 0.3})
    assert runner.choice(setting).point == "editor.lr=3" and runner.choice(setting).edge


def test_points_that_failed_are_never_chosen(setting, tmp_path):
    runner = Runner(SHORT, tmp_path)
    jobs = runner.sweep(setting)
    for job in jobs:
        made_up(tmp_path, job, failed="NumericsError: step 3: the loss is nan")
    assert runner.choice(setting) is None
    made_up(tmp_path, jobs[1], {"ES": 0.0, "GS": 0.0, "LS": 0.0})
    assert runner.choice(setting).scores["lr_1"] is None
    assert runner.choice(setting).point == "editor.lr=2"


# running


@pytest.fixture
def commands(monkeypatch) -> Iterator[list[list[str]]]:
    """The command lines that would have run; each run is made up and ends well."""
    ran: list[list[str]] = []

    def call(_self: Processes, script: str, *given: str, terminal: Path) -> None:
        assert script == "main.py" and terminal.name == "terminal.txt"
        ran.append(list(given))
        words = {key: value for key, _, value in (word.partition("=") for word in given)}
        folder = Path(words.get("hydra.run.dir") or words["resume"])
        job = Job("/".join(folder.parts[-3:]), given[:-1])
        if "resume" in words:
            status = json.loads((folder / "status.json").read_text())
            write_status(folder, status | {"state": "done", "overrides": [*status["overrides"], *given]})
        else:
            made_up(folder.parents[2], job)

    monkeypatch.setattr(Processes, "call", call)
    yield ran


def test_done_runs_stay_and_changed_ones_do_not(commands, tmp_path):
    job = Job("tune/a/lr_1", ("editor.lr=1",))
    assert state(job, tmp_path) == "new"
    assert Runner(SHORT, tmp_path).execute(job) == "done" and len(commands) == 1
    assert Runner(SHORT, tmp_path).execute(job) == "done" and len(commands) == 1
    (tmp_path / job.path / "left").touch()
    other = Job("tune/a/lr_1", ("editor.lr=1", "num_seq=2"))
    assert state(other, tmp_path) == "new"
    assert Runner(SHORT, tmp_path).execute(other) == "done" and len(commands) == 2
    assert not (tmp_path / job.path / "left").exists(), "nothing of the old run stays"


@pytest.mark.parametrize("said", ["interrupted", "running"])
def test_a_stopped_run_goes_on(commands, said, tmp_path):
    job = Job("final/a/seed0", ("editor.lr=1",))
    folder = made_up(tmp_path, job)
    write_status(folder, json.loads((folder / "status.json").read_text()) | {"state": said})
    assert state(job, tmp_path) == "stopped"
    assert Runner(SHORT, tmp_path).execute(job) == "done"
    assert commands == [[f"resume={folder}"]]
    assert state(job, tmp_path) == "done", "resume= is no other setting"


def test_failures_are_tried_again_and_divergence_is_a_result(commands, tmp_path):
    job = Job("final/a/seed0", ("editor.lr=1",))
    made_up(tmp_path, job, failed="OSError: no space left")
    assert Runner(SHORT, tmp_path).execute(job) == "done" and len(commands) == 1
    made_up(tmp_path, job, failed="NumericsError: step 3")
    assert Runner(SHORT, tmp_path).execute(job) == "diverged" and len(commands) == 1


def test_a_failing_run_is_noted_and_the_rest_go_on(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Processes, "call", lambda *_, **__: None)
    runner = Runner(SHORT, tmp_path)
    failed = runner.run(["shifts"])
    sweeps = [job for name in PARTS["shifts"].settings for job in runner.sweep(settings(SHORT)[name])]
    assert sorted(failed) == sorted(job.path for job in sweeps)
    assert "final/ultraedit: not run" in capsys.readouterr().out


def test_commands_that_are_stopped_may_end_in_order(monkeypatch, tmp_path):
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved')));"
    code += "print('up', flush=True); time.sleep(60)"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
    runner, seen = Runner(SHORT, tmp_path, at_once=2), [tmp_path / name for name in "abc"]
    monkeypatch.setattr(runner, "execute", lambda path: runner.processes.call("-c", code, terminal=path))

    def stop() -> None:
        while not all(path.is_file() and "up" in path.read_text() for path in seen[:2]):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        runner.all(seen)
    assert [path.read_text().split() for path in seen[:2]] == [["up", "saved"]] * 2
    assert not seen[2].exists(), "nothing is started any more"


def test_runs_share_the_machine(monkeypatch, tmp_path):
    runner, met = Runner(SHORT, tmp_path, at_once=2), threading.Barrier(2)
    monkeypatch.setattr(runner, "execute", lambda _: met.wait(timeout=20))
    runner.all(["a", "b"])
    seen = tmp_path / "threads"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runner.processes.call("-c", "import os; print(os.environ['OMP_NUM_THREADS'])", terminal=seen)
    assert int(seen.read_text()) == max(1, cores() // 2)


def test_two_at_once_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["claims", "--short", "--out", str(tmp_path)])
    with FileLock(tmp_path / ".lock"):
        assert main() == 1
    assert "another python -m claims runs there" in capsys.readouterr().err


def test_a_part_runs_once(commands, tmp_path):
    runner = Runner(SHORT, tmp_path)
    assert runner.run(["cumulative", "shifts"]) == [] and len(commands) == 6
    assert runner.run(list(PARTS)) == []
    paths = [next(w for w in words if w.startswith("hydra.run.dir=")) for words in commands]
    assert len(set(paths)) == len(paths) == 2 * 9 + 11, "each run once, whatever parts want it"
    chosen = [words for words in commands if any("final/warmup_none" in word for word in words)]
    assert "editor.lr=0.0003" in chosen[0], "as StableEdit's sweep chose"


@pytest.mark.parametrize(("name", "words"), [("claims", "-m claims"), ("claims_short", "-m claims --short")])
def test_run_sh(tree, whole_tree, name, words):  # noqa: F811
    installed, (last,) = installed_and_run(whole_tree, name, "--only", "shifts")
    assert installed == PROGRAM and last.endswith(f"{words} --only shifts")


def test_run_sh_runs_the_study(tree, whole_tree):  # noqa: F811
    _, (last,) = installed_and_run(whole_tree, "study", "--list")
    assert last.endswith("-m claims.study --list")
    _, both = installed_and_run(whole_tree, "claims_short")
    assert [line.partition(" -m ")[2] for line in both] == ["claims --short", "claims.study --short"]


# end to end


def test_end_to_end_on_a_tiny_model(tmp_path):
    """A sweep of two, the long run and the page, with real runs of main.py."""
    scale = Scale(
        "short", "claims_base_short", 10, 6, 30, 20, 10, points=2, seeds=1, settings=("stableedit",)
    )  # fmt: skip
    sites = f"model.edit_modules=[{','.join(SITES['tiny-llama'])}]"
    extra = ("model.name=tiny-llama", f"model.name_or_path={MODELS / 'tiny-llama'}", sites, "dataset.n_edits=10")
    extra += (f"eval.cache_dir={tmp_path / 'eval'}", "eval.edits=20", "downstream.tasks=[sst]")
    runner = Runner(scale, tmp_path / "out", (*extra, "downstream.number_of_tests=2"))
    runner.prepare()
    assert runner.run(["cumulative"]) == []
    text = Page(runner).write(tmp_path / "RESULTS.md").read_text()
    run = load_run(runner.out / "final" / "stableedit" / "seed0")
    assert run.finished and run.results["counts"]["edits"] == 60 and run.results["counts"]["warm_up_steps"] == 3
    assert len(run.events["over_time"]) == 4 and not (run.path / "checkpoints").exists()
    assert "Immediate ES changes by" in text and "tiny-llama edited at" in text
    assert runner.choice(settings(scale)["stableedit"]).scores.keys() == {"lr_0.0003", "lr_0.001"}
