"""Tables for papers, what comparisons show of the settings, remarks beneath tables, failed and worst edits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import report
from files import read_json, write_json
from lifelong.worst import SHOWN, Worst
from report.comparison import compare, comparison_figures
from report.latex import surely_best
from report.load import load_runs
from report.metrics import LOW_LS, merit, says_little
from report.terminal import remarks
from tests.report_runs import write_run

CELL = r"(?:\\textbf\{)?[\d.]+\}?(?: \{\\scriptsize [\d.]+--[\d.]+\})?|--"


def body(text: str) -> list[list[str]]:
    """The rows of a booktabs tabular as cells; its frame is checked."""
    lines = text.splitlines()
    assert lines[0] == r"% \usepackage{booktabs}" and lines[-1] == r"\end{tabular}"
    columns = re.fullmatch(r"\\begin\{tabular\}\{(l[lr]+)\}", lines[1])
    assert columns and lines[2] == r"\toprule" and lines[-2] == r"\bottomrule" and r"\hline" not in text
    rows = [line.removesuffix(r" \\").split(" & ") for line in lines[3:-2] if line != r"\midrule"]
    assert all(len(row) == len(columns[1]) for row in rows if "multicolumn" not in row[0])
    return rows


def change(folder: Path, **more: Any) -> Path:
    """Put something into a run's results."""
    write_json(folder / "results.json", read_json(folder / "results.json") | more)
    return folder


def test_a_runs_table_has_unedited_edited_and_gain(tmp_path):
    load = {"load": 0.35, "edits": 20000, "sites": 4, "d_k": 57344}
    run = change(write_run(tmp_path / "run"), load=load)
    report.make([run])
    rows = body((run / "report" / "table.tex").read_text())
    assert r"facts $\cdot$ smollm2-135m $\cdot$ stableedit" in rows[0][0] and "load 0.35: 20,000 edits" in rows[0][0]
    assert rows[1] == ["metric", "unedited", "edited", "gain"]
    entries = {entry["metric"]: entry for entry in read_json(run / "results.json")["metrics"]}
    for name, first, after, gain in rows[2:]:
        entry = entries[name.replace("\\", "")]
        assert first.startswith(f"{entry['before']:.3f}") and after.startswith(f"{entry['value']:.3f}")
        assert gain == f"{entry['value'] - entry['before']:+.3f}"
        assert entry["low"] is None or after.endswith(f"{{\\scriptsize {entry['low']:.3f}--{entry['high']:.3f}}}")


def test_several_runs_have_names_an_unedited_row_and_bold_where_it_is_sure(tmp_path):
    words = ("experiment=quickstart",)
    good = write_run(tmp_path / "x1", overrides=(*words, "editor=ultraedit"), editor="ultraedit", shift=0.2, alpha=1.0)
    folders = [good, write_run(tmp_path / "x2", overrides=words), write_run(tmp_path / "x3", overrides=words, seed=1)]
    report.make(folders, tmp_path / "out")
    head, unedited, best, *others = body((tmp_path / "out" / "table.tex").read_text())
    assert head[:6] == ["", "ES", r"ES\_all", "GS", r"GS\_all", r"LS\_agreement"]
    assert unedited[0] == r"facts $\cdot$ smollm2-135m: unedited" and "scriptsize" in unedited[1]
    assert best[0] == "ultraedit, alpha 1" and all(cell.startswith(r"\textbf{") for cell in best[1:])
    assert [row[0] for row in others] == ["stableedit, alpha 10"] * 2 and "textbf" not in str(others)
    assert all(re.fullmatch(CELL, cell) for row in (unedited, best, *others) for cell in row[1:])
    report.make(folders[1:], tmp_path / "alike")
    assert "textbf" not in (tmp_path / "alike" / "table.tex").read_text(), "a draw of the same"


def test_the_best_is_sure_where_its_interval_lies_above_all_others():
    def row(value: float, low: float, high: float) -> dict[str, float]:
        return {"value": value, "low": low, "high": high}

    assert surely_best([row(0.5, 0.45, 0.55), row(0.7, 0.6, 0.8), {}]) == 1
    assert surely_best([row(0.5, 0.4, 0.62), row(0.7, 0.6, 0.8)]) is None
    assert surely_best([row(0.7, 0.6, 0.8), {}]) is None, "alone it is no best"


def test_comparing_shows_resolved_values_that_differ(tmp_path):
    """The words of the runs say little: one names an experiment, one an editor, one a step size."""
    write_run(tmp_path / "1", overrides=("experiment=quickstart",))
    write_run(tmp_path / "2", overrides=("experiment=quickstart", "editor=ultraedit"), editor="ultraedit", alpha=1.0)
    write_run(tmp_path / "3", overrides=("experiment=quickstart", "editor.lr=0.01"), lr=0.01, whitening_floor=1e-5)
    found = compare(load_runs([tmp_path / name for name in "123"]))
    rows = found.settings.astype(str).to_dict("records")
    assert [row["editor.name"] for row in rows] == ["stableedit", "ultraedit", "stableedit"]
    assert [row["editor.lr"] for row in rows] == ["0.0015", "0.0015", "0.01"]
    assert [row["editor.alpha"] for row in rows] == ["10", "1", "10"]
    assert [row["editor.whitening_floor"] for row in rows] == ["", "", "1e-05"]


def test_a_run_that_lacks_a_score_is_not_the_best(tmp_path):
    for job, shift in enumerate((0.0, 0.2)):
        write_run(tmp_path / str(job), shift=shift, overrides=(f"editor.alpha={job}",))
    results = read_json(tmp_path / "1" / "results.json")
    change(tmp_path / "1", metrics=[row for row in results["metrics"] if row["metric"] != "LS_agreement"])
    found = compare(load_runs([tmp_path]))
    assert found.scores["objective"].isna().tolist() == [False, True]


def test_merit_of_nothing_is_none():
    assert merit({}, {}) is None and merit({"LS_agreement": 0.5}, {}) is None
    assert merit({"ES": 1.0}, None, "published") is None


# beneath the table


def test_remarks_say_load_age_kind_and_what_says_little():
    ages = [{"from": 0, "to": 100, "n": 100, "ES": 0.9, "ES_all": 0.8}, {"from": 100, "to": 1000, "n": 400, "ES": 0.5}]
    load = {"load": 500 / 6144, "edits": 500, "sites": 4, "d_k": 6144}
    low = [{"metric": "LS", "before": LOW_LS - 0.01, "value": 0.3}]
    lines = remarks(
        {"load": load, "retention_by_age": ages, "metrics": low, "config": {"dataset": {"locality": "neighbour"}}}
    )
    assert lines[0] == "load 0.0814: 500 edits / 6,144, d_k of 4 sites"
    assert lines[1] == "ES by age, in edits: 0-100 ago 0.9000 (100), 100-1,000 ago 0.5000 (400)"
    assert lines[2].startswith("LS: near neighbours") and lines[3].startswith("unedited LS is 0.24") and len(lines) == 4
    assert remarks({"metrics": [{"metric": "LS", "before": 0.4}], "retention_by_age": ages[:1]}) == []


@pytest.mark.parametrize(("value", "warned"), [(0.08, True), (LOW_LS, False), (None, False)])
def test_low_locality_is_warned_of(value, warned):
    assert bool(says_little({"LS": value})) is warned and says_little({}) is None


# failed and worst edits


def test_failed_edits_come_first_and_the_lists_are_short():
    worst = Worst()
    for index in range(40):
        failed = index % 2 == 0
        after = {
            "ES": {"tokens": 0.5 if failed else 1.0, "all": not failed, "prediction": "said"},
            "GS": {"tokens": index / 40},
        }
        worst.add({"index": index, "step": 1, "prompt": "p", "target": "t"}, after, None if index < 2 else 0.5)
    told = worst.told()
    assert (told["scored"], told["failed"], len(told["edits"])) == (40, 20, 2 * SHOWN)
    means = [[v for v in (e["ES"], e["GS"], e["LS_agreement"]) if v is not None] for e in told["edits"]]
    for part in (means[:SHOWN], means[SHOWN:]):
        values = [sum(one) / len(one) for one in part]
        assert values == sorted(values)
    assert all(edit["ES"] == 0.5 for edit in told["edits"][:SHOWN]) and told["edits"][-1]["ES"] == 1.0


def test_the_page_lists_them_and_its_header_names_the_settings(tmp_path):
    edit = {"index": 3, "step": 1, "prompt": "<b>Who</b>", "target": "a & b", "said": "c", "ES": 0.0, "GS": None}
    worst = {"scored": 500, "failed": 160, "edits": [edit | {"LS_agreement": 0.25}]}
    run = change(write_run(tmp_path / "run"), worst=worst)
    text = report.make([run]).read_text(encoding="utf-8")
    section = text[text.index('<section id="worst">') :]
    assert "160 of 500 edits failed" in section and "&lt;b&gt;Who&lt;/b&gt;" in section and "<td>0.25</td>" in section
    header = text[text.index("<header>") : text.index("</header>")]
    assert "lr 0.0015 · alpha 10 · sites model.layers.24.mlp.down_proj" in header


def test_broken_lists_are_noted(tmp_path):
    run = change(write_run(tmp_path / "run"), worst={"scored": 1, "failed": 1, "edits": [{"prompt": 3}]})
    (found,) = load_runs([run])
    assert "results.json cannot be read" in json.dumps(found.notes)


def test_what_compares_with_the_unedited_model_starts_where_that_is(tmp_path):
    for job in range(2):
        run = write_run(tmp_path / str(job), overrides=(f"editor.alpha={job}",), alpha=float(job))
        lines = [{"event": "evaluate", "edits": 0, "ES": 0.1}]
        lines += [{"event": "evaluate", "edits": 500, "ES": 0.5, "LS_agreement": 0.8}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plates = [plate for plate in comparison_figures(compare(load_runs([tmp_path]))) if plate]
    (axes,) = next(plate for plate in plates if plate.name == "runs_LS_agreement").figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[1.0, 0.8]] * 2
