"""tune=true: records, step sizes, the same model from trial to trial, the preset; what inspect=true estimates."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import lifelong.session
from config.check import ConfigError, RunError
from config.compose import FOLDER, compose_config
from config.schema import Config, register
from data.base import DataError
from lifelong.costs import Work
from lifelong.heldout import held_out
from lifelong.inspect import inspect_model
from lifelong.job import execute
from lifelong.run import as_dict
from lifelong.search import best_of, grid, next_lr
from lifelong.session import open_session
from lifelong.setup import prepare
from lifelong.trials import Trials
from lifelong.tune import for_trials, tune
from nets import NumericsError
from report.metrics import merit
from tests.tiny import DATA, SITES, run_main, tiny_words

CPU = torch.device("cpu")
FEW = ["num_seq=1", "num_seq_zsre=1", "tune_edits=8", "tune_trials=4"]


def tuned(folder: Path, *more: str, words: list[str] | None = None) -> dict[str, Any]:
    given = words or tiny_words("tune=true", *FEW, *more)
    return tune(compose_config(given), folder, given)


# which step sizes


def test_the_search_finds_a_peak_that_the_grid_misses() -> None:
    peak, tried = 3.3e-4, dict[float, float | None]()
    points = grid(1e-6, 1e-1, 12)
    assert points == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    while len(tried) < 12 and (lr := next_lr(tried, points)) is not None:
        assert lr not in tried
        tried[lr] = -abs(math.log(lr / peak))
    best = best_of(tried)
    assert best is not None and abs(math.log(best / peak)) < math.log(1.3)


@pytest.mark.parametrize("peak", [1e-8, 1e2])
def test_the_search_goes_beyond_a_grid_that_ends_too_early(peak: float) -> None:
    tried, points = dict[float, float | None](), grid(1e-4, 1e-2, 4)
    for _ in range(4):
        lr = next_lr(tried, points)
        assert lr is not None
        tried[lr] = -abs(math.log(lr / peak))
    assert (min(tried) < 1e-4) if peak < 1 else (max(tried) > 1e-2)


def test_the_search_ends() -> None:
    assert next_lr({1e-3: 0.5}, [1e-3]) is None, "one trial has no neighbours"
    assert next_lr({1e-3: None, 1e-2: None}, [1e-3, 1e-2]) is None, "every trial failed"
    assert next_lr({1e-3: 0.1, 1.1e-3: 0.3, 1.2e-3: 0.2}, [1e-3, 1.2e-3]) is None, "nearer than can be told apart"
    assert next_lr({1e-4: 0.1, 1e-3: 0.3, 1e-2: None}, [1e-4, 1e-3, 1e-2]) == 3.2e-4, "not towards the one that failed"
    assert best_of({1e-3: 0.0, 1e-2: 0.0}) == 1e-3, "of equals the smaller"
    assert grid(1e-4, 1e-2, 1) == [1e-3]


def test_the_objective_is_gain_less_lost_agreement() -> None:
    before = {"ES_all": 0.1, "GS_all": 0.0}
    assert merit(before | {"LS_agreement": 1.0}, before) == 0
    assert merit({"ES_all": 0.7, "GS_all": 0.2, "LS_agreement": 0.9}, before) == pytest.approx(0.4 - 0.1)
    assert merit({"ES_all": 0.7}, before) == pytest.approx(0.6), "what has no prompts is left out"
    near = {"ES_all": 0.7, "GS_all": 0.2, "LS_neighbour_agreement": 0.9}
    assert merit(near, before) == pytest.approx(0.4 - 0.1), "near neighbours where there are no unrelated prompts"
    assert merit(near | {"LS_agreement": 0.8}, before) == pytest.approx(0.4 - 0.2)


# which records


def test_records_are_those_behind_the_run(tmp_path: Path) -> None:
    cfg = compose_config(tiny_words("tune=true", *FEW))
    data, _ = prepare(cfg)
    held = held_out(cfg, data, lambda edits: [None] * len(edits), 8)
    assert held.path.endswith("zsre_eval.json")
    assert [edit.row for edit in held.edits] == list(range(8, 16))
    most = len(json.loads((DATA / "zsre_eval.json").read_text())) // 8
    all_of_them = compose_config(tiny_words("tune=true", f"num_seq={most}", "num_seq_zsre=1"))
    data, _ = prepare(all_of_them)
    held = held_out(all_of_them, data, lambda edits: [None] * len(edits), 8)
    assert held.path.endswith("zsre_train.json") and held.edits[0].row >= 8, "behind the warm-up"


def test_what_a_run_asks_too_is_not_held_out(tmp_path: Path) -> None:
    rows = json.loads((DATA / "zsre_eval.json").read_text())[:16]
    (tmp_path / "facts.json").write_text(json.dumps([*rows[:8], rows[3], *rows[8:], rows[0]]))
    words = [f"dataset.valid_path={tmp_path}/facts.json", "dataset.train_path=null", "editor=ultraedit"]
    cfg = compose_config(tiny_words("tune=true", *FEW, *words))
    data, _ = prepare(cfg)
    held = held_out(cfg, data, lambda edits: [None] * len(edits), 8)
    assert [edit.row for edit in held.edits] == list(range(9, 17))
    with pytest.raises(DataError, match=r"9 records are needed .*facts.json holds 8 behind the 8 that a run reads"):
        held_out(cfg, data, lambda edits: [None] * len(edits), 9)


# trials


def test_every_trial_starts_from_the_same_state() -> None:
    cfg = compose_config(tiny_words("tune=true", *FEW))
    data, tokenizer = prepare(cfg)
    held = held_out(cfg, data, lambda edits: [None] * len(edits), 8)
    with open_session(for_trials(cfg, SITES["tiny-llama"]), tokenizer, CPU, CPU) as session:
        made = Trials(session, held.edits, data.training, SITES["tiny-llama"])
        first, wild, again = made.run(3e-3), made.run(1.0), made.run(3e-3)
        assert first == again and first.objective is not None and wild.scores != first.scores
        assert first.relative_shift == pytest.approx(made.per_lr() * 3e-3, rel=0.5)
        state = session.tensors()
        assert all(torch.equal(state[name], value) for name, value in made.start.items())
        assert session.editor.statistics[112, 48].n == 0


def test_a_trial_whose_numbers_are_not_finite_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = Trials.write

    def write(self: Trials, lr: float) -> float:
        if lr > 2e-3:
            raise NumericsError("the shift is not finite")
        return run(self, lr)

    monkeypatch.setattr(Trials, "write", write)
    results = tuned(tmp_path, "tune_lr=[1e-3,1e-2]")
    trials = results["tune"]["trials"]
    assert {trial["error"] is None for trial in trials if trial["lr"] > 2e-3} == {False}
    assert trials[results["tune"]["best"]]["lr"] <= 2e-3
    with pytest.raises(RunError, match="every trial failed; the last one: the shift is not finite"):
        tuned(tmp_path, "tune_lr=[3e-3,1e-2]")


def test_sites_are_compared_on_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    loads, load = [], lifelong.session.load_model

    def counted(*args: Any) -> Any:
        loads.append(args)
        return load(*args)

    monkeypatch.setattr(lifelong.session, "load_model", counted)
    lists = '["model.layers.{1-3}.mlp.down_proj","model.layers.1.mlp.up_proj model.layers.2.mlp.down_proj"]'
    results = tuned(tmp_path, f"tune_sites={lists}", "tune_trials=2", "tune_lr=[1e-3,1e-2]")
    assert len(loads) == 1
    trials = results["tune"]["trials"]
    assert [trial["sites"] for trial in trials[::2]] == [
        ["model.layers.{1-3}.mlp.down_proj"], ["model.layers.1.mlp.up_proj", "model.layers.2.mlp.down_proj"],
    ]  # fmt: skip
    preset = yaml.safe_load((tmp_path / "tuned" / "experiment" / "tuned.yaml").read_text())
    assert preset["model"]["edit_modules"] == trials[results["tune"]["best"]]["sites"]
    assert len(capsys.readouterr().out.splitlines()) >= 1 + 4 + 2
    alone = tuned(tmp_path / "alone", "tune_trials=2", "tune_lr=[1e-3,1e-2]")["tune"]["trials"]
    assert alone == trials[:2], "what other sites were tried changes nothing"


# what it leaves


def composed(folder: Path, *words: str) -> Config:
    register()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        searched = [f"hydra.searchpath=['file://{folder}']"]
        cfg: Any = OmegaConf.to_object(compose("config", overrides=[*searched, *words]))
        return cfg


@pytest.mark.parametrize("first", [[], ["experiment=quickstart"], ["experiment=quickstart", "+editor.cache_dir=a b"]])
def test_the_preset_is_the_command_with_what_was_found(tmp_path: Path, first: list[str]) -> None:
    words = [*first, *tiny_words(*FEW, editor="ultraedit"), "tune=true", "tune_lr=[1e-4,1e-2]"]
    results = tuned(tmp_path, words=words)
    best = results["tune"]["trials"][results["tune"]["best"]]
    plain = [word for word in words if not word.startswith("tune")]
    expected = compose_config([*plain, f"editor.lr={best['lr']}"])
    assert as_dict(composed(tmp_path / "tuned", "experiment=tuned")) == as_dict(expected)
    assert composed(tmp_path / "tuned", "experiment=tuned", "num_seq=2").num_seq == 2


def test_from_the_command_line_to_the_run_that_uses_the_preset(tmp_path: Path) -> None:
    words = tiny_words(*FEW, "tune_trials=3", "report=true", f"hydra.run.dir={tmp_path}/found")
    done = run_main("tune=true", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "LS_agreement" in done.stdout and "\n* " in f"\n{done.stdout}"
    use = done.stdout.splitlines()[-1].removeprefix("use it: python main.py ").split()
    assert use == ["--config-dir", f"{tmp_path}/found/tuned", "experiment=tuned"]
    results = json.loads((tmp_path / "found" / "results.json").read_text())
    assert len(results["tune"]["trials"]) == 3 and results["pre"]["ES"] <= 1
    assert json.loads((tmp_path / "found" / "status.json").read_text())["state"] == "done"
    assert (tmp_path / "found" / "report" / "figures" / "tuning.svg").is_file()
    again = run_main(*use, "eval.before=false", f"hydra.run.dir={tmp_path}/used", "report=false", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    used = json.loads((tmp_path / "used" / "results.json").read_text())
    assert used["config"]["editor"]["lr"] == results["tune"]["trials"][results["tune"]["best"]]["lr"]
    assert used["config"]["tune"] is False
    folder = tmp_path / "found"
    with pytest.raises(ConfigError, match="tune=true starts anew"):
        execute(compose_config([*words, "tune=true", f"resume={folder}"]), folder, words)
    assert json.loads((tmp_path / "found" / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tune_lr=[1e-2,1e-3]"], r"tune_lr=\[0.01, 0.001\]: must be \[lowest, highest\]"),
        (["tune_lr=[1e-2]"], "tune_lr"),
        (["tune_lr=[0,1]"], "tune_lr"),
        (["tune_trials=0"], "tune_trials=0: must be"),
        (["tune_edits=0"], "tune_edits=0: must be"),
        (["tune_sites=['']"], "tune_sites: a list of sites is blank"),
        (["tune_sites=[model.layers.1.mlp.down]"], "tune_sites.*no module model.layers.1.mlp.down"),
        (["tune_sites=[model.layers.1.mlp.down_proj,model.layers.9.mlp.down_proj]"], "tune_sites.*no module"),
        (["model_cache=true", "model_cache_dir=x"], "tune=true keeps no model"),
        (["tune_edits=4000"], "tune_edits=4000"),
    ],
)
def test_bad_input_is_named_before_a_model_loads(
    tmp_path: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifelong.session, "load_model", lambda *_: pytest.fail("a model was loaded"))
    given = tiny_words("tune=true", *FEW, *words)
    with pytest.raises((ConfigError, DataError), match=said):
        execute(replace(compose_config(given)), tmp_path / "run", given)


def test_an_editor_that_trains_is_not_tuned(tmp_path: Path) -> None:
    words = tiny_words("tune=true", *FEW, editor="malmen")
    with pytest.raises(ConfigError, match="editor=malmen learns its step sizes"):
        tuned(tmp_path, words=words)


# what inspect estimates


def test_inspect_estimates_a_step() -> None:
    text = inspect_model(compose_config(tiny_words("dataset.n_edits=10")))
    part = next(part for part in text.split("\n\n") if part.startswith("a step of 10 edits by stableedit"))
    assert "estimated" in part and "30 rows a site" in part and "forward passes" in part
    names = ["weights (float32)", "statistics", "rows", "factors of shifts", "solving"]
    assert all(name in part for name in names)


def test_the_estimates_are_those_of_the_shapes() -> None:
    work = Work(30, [(112, 48)] * 3, whitens=True)
    assert work.statistics() == 8 * (48 * 48 + 2 * (112 + 48)), "pooled over sites of one shape"
    assert work.step_rows() == 4 * 3 * 30 * (112 + 48)
    assert work.factors() == 2 * work.step_rows(), "thin, of this step and the last"
    many = replace(work, rows=500)
    assert many.factors() == 2 * 4 * 3 * 112 * 48, "whole matrices where rows are many"
    assert work.flops() < many.flops()
    assert replace(work, squares=2).statistics() - work.statistics() == 8 * 2 * 3 * 112 * 112
    assert replace(work, rank=8, blocks=2).flops() - work.flops() == 3 * 2 * 4 * 30 * (112 + 48) * 8
