"""The study: its plan, its frontiers by hand, and going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from claims import study, study_figure, study_page
from config.check import check_override_names, check_values
from config.compose import compose_config
from config.sites import quoted
from lifelong.setup import warm_up_steps

FULL, SHORT = study.SCALES["full"], study.SCALES["short"]


def test_every_run_of_the_plan_composes(tmp_path):
    planned = study.jobs(FULL, tmp_path, FULL.data, FULL.editors)
    assert len({job.path for job in planned}) == len(planned)
    one = {tuple(job.path.split("/")[:2]): job for job in planned}  # the other points and seeds differ in a number
    for job in (job for (name, editor), job in one.items() if name == "facts" or editor == FULL.editors[0]):
        check_override_names(job.words)
        cfg = compose_config(list(job.words))
        check_values(cfg)
        name, editor = job.path.split("/")[:2]
        assert (cfg.dataset.name, cfg.editor.name) == (name, editor)
        assert cfg.num_seq * cfg.dataset.n_edits == 1600 and cfg.eval.edits == FULL.scored
        assert warm_up_steps(cfg) in (0, FULL.warm_up)
        assert cfg.model.edit_modules[-1] == f"model.layers.{25 if editor == 'finetune' else 27}.mlp.down_proj"


def test_the_base_is_run_without_its_parts(tmp_path):
    planned = {job.path: job for job in study.parts(FULL, tmp_path, ["facts"])}
    assert {path.split("/")[1] for path in planned} == set(study.PLAN["parts"]["settings"]) - {"as_published"}
    cfg = compose_config(list(planned["facts/raw_tuned/0.3/seed0"].words))
    assert (cfg.editor.name, cfg.editor.lr, cfg.editor.RunningMeanStd_mode.value) == ("stableedit", 0.3, "none")


def test_ten_thousand_facts(tmp_path):
    first, second = study.long(FULL, tmp_path, ["facts"])
    assert not study.long(FULL, tmp_path, ["zsre"])
    cfg = compose_config(list(second.words))
    assert cfg.num_seq * cfg.dataset.n_edits == study.PLAN["long"]["edits"] and cfg.seed == 1 and first.path[-1] == "0"
    run_of(tmp_path / first.path, 0.5, [T, T, F, F], [F, F, F, F])
    text = study_page.page(study.PLAN, "full", study_page.load(tmp_path))
    assert "## 10,000 facts" in text and "Holds: ES." in text and "| margin | 0.500" in text


@pytest.mark.parametrize(
    ("words", "kinds"),
    [([], {"margin", "raw", "long"}), (["--editors", "margin"], {"margin"}), (["--parts"], {"raw"}),
     (["--long"], {"long"}), (["--parts", "--long"], {"raw", "long"}), (["--short"], {"margin"})],
)  # fmt: skip
def test_what_is_run(words, kinds, tmp_path, capsys):
    assert study.main([*words, "--list", "--only", "facts", "--out", str(tmp_path)]) == 0
    paths = [line.split()[1].split("/") for line in capsys.readouterr().out.splitlines()]
    found = {"long" if path[0] == "long" else path[1] for path in paths}
    assert found & {"margin", "raw", "long"} == kinds


def test_a_scale_with_fewer_points_takes_those_from_the_middle_on():
    lrs = [f"editor.lr={lr:g}" for lr in (1e-4, 3e-4, 1e-3)]
    assert study.points(FULL, "stableedit") == lrs and study.points(SHORT, "stableedit") == lrs[1:2]
    assert study.points(SHORT, "margin") == ["editor.text_weight=1000"] and study.points(FULL, "in_context") == [""]


def test_seeds_are_orders_of_the_same_records(tmp_path):
    study.write_data(tmp_path, ["facts"], 2)
    first, second = (json.loads((tmp_path / "data" / f"facts_{n}.json").read_text(encoding="utf-8")) for n in (0, 1))
    assert first != second and sorted(map(str, first)) == sorted(map(str, second))
    (tmp_path / "data" / "facts_0.json").write_text("[]", encoding="utf-8")
    study.write_data(tmp_path, ["facts"], 1)
    assert (tmp_path / "data" / "facts_0.json").read_text(encoding="utf-8") == "[]"


def test_data_that_is_not_there_is_left_out_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REAL_DIR", str(tmp_path))
    assert study.there(["facts", "zsre"]) == ["facts"]
    assert "zsre: left out: REAL_DIR names no folder with zsre.json.xz" in capsys.readouterr().err


def run_of(folder: Path, agreement: float, whole: list[bool], rephrased: list[bool]) -> None:
    """A finished run over four edits, before which no answer was right."""
    folder.mkdir(parents=True)
    values = {"ES_all": whole, "GS_all": rephrased, "ES": whole, "GS": rephrased}
    rows: list[dict[str, Any]] = [
        {"metric": name, "protocol": "", "value": sum(each) / 4, "before": 0.0, "n": 4} for name, each in values.items()
    ]
    norms = [{"shift_norm": 1.0}, {"shift_norm": 2.0}]
    sites = {f"layers.{at}": site for at, site in enumerate(norms)}
    steps = [{"event": "step", "phase": phase, "sites": sites} for phase in ("warm-up", "edit")]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)), encoding="utf-8")
    rows.append({"metric": "LS_agreement", "protocol": "", "value": agreement, "before": 1.0, "n": 4})
    results = {"metrics": rows, "pre": {}, "counts": {"edits": 4}, "ES": 0.0, "GS": 0.0, "LS": 0.0}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (folder / "status.json").write_text(json.dumps({"state": "done", "overrides": []}), encoding="utf-8")
    lines = [
        {"index": n, "before": {"ES": {"all": False}, "GS": {"all": False}},
         "after": {"ES": {"all": es}, "GS": {"each": [{"all": gs}, {"all": False}]}}}
        for n, (es, gs) in enumerate(zip(whole, rephrased, strict=True))
    ]  # fmt: skip
    (folder / "edits.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def test_a_run_that_is_done_is_known_by_its_words(tmp_path):
    job = study.jobs(SHORT, tmp_path, ["facts"], ["margin"])[0]
    assert any(word.startswith("hydra.") for word in job.words)
    run_of(tmp_path / job.path, 0.5, [True] * 4, [True] * 4)
    told = [word for word in job.words if not word.startswith("hydra.")]  # as a run notes them
    assert told == [quoted(word) for word in told]
    (tmp_path / job.path / "status.json").write_text(json.dumps({"state": "done", "overrides": told}), encoding="utf-8")
    assert study.state(job, tmp_path) == "done"


T, F = True, False


def test_against_a_frontier_by_hand(tmp_path):
    """Between agreement .8 (one of four whole) and .4 (three), at .5: a quarter of the first, three of the other."""
    run_of(tmp_path / "facts/stableedit/0.0001/seed0", 0.8, [T, F, F, F], [F, F, F, F])
    run_of(tmp_path / "facts/stableedit/0.001/seed0", 0.4, [T, T, T, F], [T, F, F, F])
    run_of(tmp_path / "facts/margin/1000/seed0", 0.5, [T, T, T, T], [T, T, F, F])
    run_of(tmp_path / "facts/margin/3000/seed0", 0.3, [T, T, T, T], [T, T, F, F])
    found = study_page.load(tmp_path)["facts"]
    assert [point.value for point in found["stableedit"]] == ["0.0001", "0.001"]
    ours, beyond = found["margin"]
    over = study_page.against(found["stableedit"], ours)
    gaps = [1 - 1, 1 - 0.75, 1 - 0.75, 1 - 0]
    assert over["ES_all"].value == pytest.approx(sum(gaps) / 4) and over["ES_all"].n == 4
    assert over["GS_all"].value == pytest.approx(((0.5 - 0.375) + 0.5) / 4)
    assert over["ES_all"].low < over["ES_all"].value < over["ES_all"].high
    assert study_page.against(found["stableedit"], beyond)["ES_all"] is None
    said = study_page.verdicts(study.PLAN, study_page.load(tmp_path))
    assert "facts: at agreement 0.500 margin over stableedit: ES_all +0.375" in said and "does not hold" in said
    text = study_page.page(study.PLAN, "full", study_page.load(tmp_path))
    assert "| margin, text_weight 1000 | 1.000" in text and "| stableedit, lr 0.001 |" in text and "+0.375" in text


def test_a_table_of_the_base_without_its_parts_and_a_figure(tmp_path):
    run_of(tmp_path / "facts/stableedit/0.0003/seed0", 0.8, [T, F, F, F], [F, F, F, F])
    run_of(tmp_path / "facts/raw/0.0003/seed0", 1.0, [F, F, F, F], [F, F, F, F])
    run_of(tmp_path / "facts/margin/1000/seed0", 0.5, [T, T, T, T], [T, T, F, F])
    found = study_page.load(tmp_path)
    lines = study_page.page(study.PLAN, "full", found).splitlines()
    (raw,) = (line for line in lines if line.startswith("| no normalization, same step size | 0.0003 | 0.000"))
    assert (
        "| 1.5 |" in raw
        and "1.000" in raw
        and any(line.startswith("| StableEdit, as published | 0.0003") for line in lines)
    )
    figure = study_figure.frontiers(study.PLAN, found)
    ends = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert ends == {"stableedit": [[0.8, 0.25]], "margin": [[0.5, 1.0]]}
    run_of(tmp_path / "facts/stableedit/0.001/seed0", 0.4, [T, T, F, F], [F, F, F, F])
    assert study_figure.path(study_page.load(tmp_path)["facts"]["stableedit"], "ES_all") == [
        (1.0, 0.0),
        (0.8, 0.25),
        (0.4, 0.5),
    ]


def test_the_unedited_model_is_the_frontiers_beginning(tmp_path):
    run_of(tmp_path / "facts/stableedit/0.001/seed0", 0.5, [T, T, F, F], [F, F, F, F])
    run_of(tmp_path / "facts/margin/1000/seed0", 0.75, [T, T, T, T], [F, F, F, F])
    found = study_page.load(tmp_path)["facts"]
    assert study_page.against(found["stableedit"], found["margin"][0])["ES_all"].value == pytest.approx(0.75)


def test_a_failed_run_is_said_and_the_page_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study.Jobs, "all", lambda self, jobs: self.failed.append("facts/margin"))
    assert study.main(["--short", "--out", str(tmp_path), "--seeds", "1"]) == 1
    assert (tmp_path / "study.md").is_file() and "written to" in capsys.readouterr().out
