"""docs/real.md: it is what its generator makes of the figures kept, and those are what runs left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from claims.real import BEGIN, END, FIGURES, PAGE, asked, figures_of, page, rows, said, summary, taken
from config.check import ConfigError
from files import read_json, write_json
from report.load import load_run, load_runs
from report.metrics import merit
from tests.report_runs import write_failed, write_run
from tests.tiny import PROJECT


def made_up(path: Path, editor: str, shift: float, name: str = "zsre") -> Path:
    """A finished run of real records."""
    write_run(path, editor=editor, shift=shift)
    results = read_json(path / "results.json")
    results["config"]["dataset"] |= {"name": name, "prompt_format": "qa"}
    write_json(path / "results.json", results | {"cpu_seconds": 80.0})
    return path


@pytest.mark.skipif(not FIGURES.is_file(), reason="claims/real.yaml is not there")
def test_the_page_is_made_of_the_figures() -> None:
    figures = yaml.safe_load(FIGURES.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(figures)
    assert f"{BEGIN}\n{summary(figures)}{END}" in (PROJECT / "README.md").read_text(encoding="utf-8")
    for of in figures.values():
        if found := of["runs"].get("none"):
            assert all(after[0] == before[0] for after, before in found["metrics"].values()), (
                "no editor changes nothing"
            )


def test_figures_are_those_of_the_runs(tmp_path: Path) -> None:
    runs = load_runs([made_up(tmp_path / "0", "none", 0.0), made_up(tmp_path / "1", "stableedit", 0.1)])
    figures = taken({}, runs)
    assert figures["zsre"]["scored"] == 500 and figures["zsre"]["edits"] == 500
    row = next(row for row in runs[1].rows if row["metric"] == "GS_all")
    text = page(figures)
    assert f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})" in text
    assert f"| stableedit | {row['value']:.2f}"[:16] in summary(figures) and f" / {row['value']:.2f} / " in summary(
        figures
    )
    assert f"{merit(runs[1].scores, runs[1].before):+.3f} |" in text, "the objective is the program's"
    again = taken(figures, load_runs([made_up(tmp_path / "2", "stableedit", -0.1)]))
    assert again["zsre"]["runs"].keys() == {"none", "stableedit"}, "a run takes the place of an earlier one"
    assert figures_of(load_run(tmp_path / "2")) == again["zsre"]["runs"]["stableedit"]
    assert asked(runs[0])["prompt_format"] == "qa"


def test_searches_and_scorings_are_told_from_runs(tmp_path: Path) -> None:
    search = made_up(tmp_path / "search", "ultraedit", 0.0)
    trials = [
        {"lr": 2e-3, "objective": 0.25, "scores": {"ES_all": 0.5, "GS_all": 0.2, "LS_agreement": 0.9}},
        {"lr": 5e-4, "objective": None, "scores": None},
    ]
    write_json(
        search / "results.json", read_json(search / "results.json") | {"tune": {"rows": [7, 8], "trials": trials}}
    )
    scoring = made_up(tmp_path / "scoring", "none", 0.0)
    write_json(scoring / "results.json", read_json(scoring / "results.json") | {"scored": {"model": "m"}})
    lines = [
        {"ES": {"generated": " "}, "LS": {"each": [{"generated": "a"}, {"generated": ""}]}},
        {"ES": {"tokens": 1.0}},
    ]
    (scoring / "edits.jsonl").write_text("".join(json.dumps({"after": line}) + "\n" for line in lines))
    failed = [5e-4, None, None, None, None]
    of = taken({}, load_runs([search, scoring]))["zsre"]
    assert (
        of["searches"] == {"ultraedit": {"edits": 2, "trials": [failed, [2e-3, 0.25, 0.5, 0.2, 0.9]]}}
        and not of["runs"]
    )
    assert of["formats"]["qa"] == said(load_run(scoring)) and of["formats"]["qa"]["empty"] == 2


def test_another_step_size_is_a_row_of_its_own(tmp_path: Path) -> None:
    runs = [made_up(tmp_path / "0", "stableedit", 0.0), made_up(tmp_path / "1", "stableedit", 0.1)]
    given = load_run(runs[1])
    given.overrides = ["editor.lr=1.5e-3"]
    figures = taken({}, [load_run(made_up(tmp_path / "2", "finetune", 0.0)), load_run(runs[0]), given])
    assert rows(figures["zsre"]) == ["stableedit", "stableedit, lr 2e-03", "finetune"]


def test_other_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is of facts; name finished runs of real_"):
        taken({}, load_runs([made_up(tmp_path / "0", "none", 0.0, name="facts")]))
    with pytest.raises(ConfigError, match="loss is <nan>"):
        taken({}, load_runs([write_failed(tmp_path / "1")]))
