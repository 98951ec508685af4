"""report/: the page, the figures and the tables of runs in every state, and that their numbers are the runs' own."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import report
from config.check import ConfigError
from report.comparison import compare
from report.latex import latex
from report.load import load_runs
from report.metrics import METRICS, Metric, Tally, described, interval, merit
from report.page import markdown
from report.terminal import print_examples
from tests.report_runs import write_failed, write_run, write_sweep
from tests.tiny import PROJECT, run_main, tiny_words

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of the editor that whitens, reported."""
    folder = write_run(tmp_path_factory.mktemp("one") / "run")
    report.make([folder])
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """Nine jobs, one of which failed, reported."""
    folder = write_sweep(tmp_path_factory.mktemp("nine") / "sweep")
    report.make([folder])
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """A real run on a tiny model with everything that can be measured."""
    folder = tmp_path_factory.mktemp("real")
    words = ["report=true", "eval.every=1", "eval.sample=6", "eval.generate=true", "eval.generate_sample=4"]
    words += ["downstream_eval_steps=3", "downstream.tasks=[sst]", "downstream.number_of_tests=4"]
    done = run_main(*tiny_words(*words, f"hydra.run.dir={folder}/run"), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {folder}/run/report/report.html"
    return folder / "run"


def page(folder: Path) -> str:
    return (folder / "report" / "report.html").read_text(encoding="utf-8")


def sections(text: str) -> list[str]:
    return re.findall(r'<section id="([\w-]+)"', text)


def figures(text: str) -> list[str]:
    return re.findall(r'<figure id="figure-([\w-]+)"', text)


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "report" / "table.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float | None:
    return float(text) if text else None


@pytest.mark.parametrize("which", ["run", "real"])
def test_the_table_holds_the_numbers_of_results(which, request):
    folder = request.getfixturevalue(which)
    expected = json.loads((folder / "results.json").read_text())["metrics"]
    found = [row for row in table(folder) if row["source"] == "results"]
    assert [row["metric"] for row in found] == [entry["metric"] for entry in expected] and len(found) >= 3
    for row, entry in zip(found, expected, strict=True):
        assert row["protocol"] == entry["protocol"]
        for name in ("value", "low", "high", "before", "n", "edits", "step"):
            assert number(row[name]) == entry.get(name), (row["metric"], name)
        if entry.get("before") is not None:
            assert number(row["difference"]) == entry["value"] - entry["before"]


def over_time_rows(folder: Path) -> dict[tuple[str, str, str, float], float]:
    """(source, metric, batch, edits) to value, from metrics.jsonl."""
    found: dict[tuple[str, str, str, float], float] = {}
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        if line["event"] == "over_time":
            edits = line["edits"]
            found |= {("over_time", name, "", edits): value for name, value in line["sample"].items()}
            found |= {("immediate", name, "", edits): value for name, value in line.get("immediate", {}).items()}
            found |= {("retention", "ES", batch, edits): value for batch, value in line.get("retention", {}).items()}
        if line["event"] == "downstream":
            found |= {
                ("downstream", name, "", line["edits"]): value
                for name, value in line.items()
                if name not in ("event", "edits") and isinstance(value, int | float)
            }
    return found


@pytest.mark.parametrize("which", ["run", "real"])
def test_the_table_holds_the_numbers_over_time(which, request):
    folder = request.getfixturevalue(which)
    rows = [row for row in table(folder) if row["source"] != "results"]
    found = {(r["source"], r["metric"], r["batch"], float(r["edits"])): float(r["value"]) for r in rows}
    assert len(found) == len(rows)
    assert found == over_time_rows(folder) and {key[0] for key in found} >= {"over_time", "immediate", "retention"}


@pytest.mark.parametrize("which", ["run", "real"])
def test_the_page_shows_the_numbers_of_results(which, request):
    folder = request.getfixturevalue(which)
    text = html.unescape(re.sub(r"<[^>]+>", " ", page(folder)))
    results = json.loads((folder / "results.json").read_text())
    for entry in results["metrics"]:
        assert f"{entry['value']:.4f}" in text, entry["metric"]
    for example in results["examples"]:
        assert example["prompt"] in text and example["target"] in text


def test_sections_and_figures_of_a_run(run):
    text = page(run)
    assert {"result", "examples", "figures"} <= set(sections(text))
    found = figures(text)
    assert len(found) == len(set(found)) >= 9
    for name in found:
        for ending in ("png", "svg"):
            assert (run / "report" / "figures" / f"{name}.{ending}").stat().st_size > 1000
    assert "editor.preheat_mode" in text or "preheat_mode" in text
    assert "2.13.0" in text, "versions"


def test_what_a_run_lacks_is_left_out(tmp_path, run):
    bare = write_run(tmp_path / "bare", before=False)
    results = json.loads((bare / "results.json").read_text())
    for key in ("spectrum", "examples", "downstream"):
        results.pop(key)
    (bare / "results.json").write_text(json.dumps(results))
    lines = (bare / "metrics.jsonl").read_text().splitlines()
    lines = [line for line in lines if '"downstream"' not in line and '"over_time"' not in line]
    (bare / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    report.make([bare])
    text = page(bare)
    assert "examples" not in sections(text)
    assert set(figures(text)) < set(figures(page(run)))
    trained = write_run(tmp_path / "trained", editor="malmen", train=40)
    report.make([trained])
    assert set(figures(page(trained))) - set(figures(page(run))), "the losses of training"


def test_a_failed_run_has_a_report_that_says_why(tmp_path):
    folder = write_failed(tmp_path / "failed")
    report.make([folder])
    text = page(folder)
    assert "loss is &lt;nan&gt;" in text and "NumericsError" in text


def test_what_comes_from_data_is_escaped(run):
    text = page(run)
    assert not re.search(r"<(script|img src=x|b>tags)", text)
    assert "&lt;b&gt;tags" in text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> list[Path]:
    """Two runs whose names, overrides, settings, prompts and errors would steer a page, a terminal, a spreadsheet."""
    bad = "<script>alert(1)</script>\x1b[31m\u202e"
    folders = [tmp_path_factory.mktemp("hostile") / f"=1+1 {bad.replace('/', '')}{at}" for at in range(2)]
    for at, folder in enumerate(folders):
        write_run(folder, overrides=(f"editor.alpha={at}", f"wandb.name='{bad}{at}'"), alpha=float(at))
        results = json.loads((folder / "results.json").read_text())
        for group in ("dataset", "model", "editor"):
            results["config"][group]["name"] = f"{bad}{group}{at}"
        results["config"]["editor"][bad] = {bad: [bad]}
        results["examples"][0] = dict.fromkeys(
            ("prompt", "before", "after", "target"), f"naïve 東京\nsecond line {bad}"
        )
        results["metrics"][0] |= {"protocol": f"=cmd|' /C calc'!A0{bad}"}
        results["versions"][bad] = bad
        (folder / "results.json").write_text(json.dumps(results))
        status = json.loads((folder / "status.json").read_text()) | {"error": bad, "traceback": bad}
        (folder / "status.json").write_text(json.dumps(status))
    report.make(folders[:1])
    report.make(folders, folders[0] / "both")
    return folders


def test_scripts_controls_and_formulas_of_data_do_nothing(hostile):
    first = hostile[0]
    for folder in (first / "report", first / "both"):
        text = (folder / "report.html").read_text(encoding="utf-8")
        assert "<script" not in text.lower() and "&lt;script&gt;alert(1)" in text
        for path in [folder / "report.html", *folder.glob("table.*"), *folder.glob("figures/*.svg")]:
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", path.read_text(encoding="utf-8")), path
        assert "naïve 東京\nsecond line" in text and "\\x1b[31m\\u202e" in text
        with open(folder / "table.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        words = {cell for row in rows for cell in row.values() if cell and cell[0] in "=+-@" and not is_number(cell)}
        assert words == set() and rows[0]["run"].startswith("'=1+1 ") and rows[0]["protocol"].startswith("'=cmd|")


def is_number(text: str) -> bool:
    try:
        return float(text) is not None
    except ValueError:
        return False


def test_the_terminal_shows_controls_escaped(hostile, capsys):
    examples = json.loads((hostile[0] / "results.json").read_text())["examples"]
    print_examples(examples)
    print(report.sweep_table(hostile[0].parent))
    out = capsys.readouterr().out
    assert "naïve 東京\nsecond line" in out and "\\x1b[31m\\u202e" in out
    assert "\x1b" not in out and "\u202e" not in out


def test_nothing_is_asked_of_the_network(run, sweep):
    for folder in (run, sweep):
        text = page(folder)
        assert not re.search(r"""(src|href|action)\s*=\s*["']?(https?:)?//|url\(|@import|<script""", text)
        assert "default-src 'none'" in text


def test_a_sweep_names_its_failed_job_and_its_best(sweep):
    text = page(sweep)
    assert "comparison" in sections(text) and "failed" in sections(text)
    assert "7: failed." in text and "loss is &lt;nan&gt;" in text
    assert "4 (best)" in text
    drawn = {"ES", "GS", "ES_all", "GS_all", "LS_agreement", "objective"}
    assert {f"sweep_{name}" for name in drawn} <= set(figures(text))
    lines = report.sweep_table(sweep).splitlines()
    assert next(line.split()[:4] for line in lines if line.startswith("*")) == ["*", "4", "10", "middle"]
    assert any(line.split()[:1] == ["7"] and line.split()[-1] == "failed" for line in lines)
    assert any("loss is <nan>" in line for line in lines)
    rows = table(sweep)
    assert {row["run"] for row in rows if row["source"] == "results" and row["value"]} == {
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "8",
    }


def test_several_runs_side_by_side(tmp_path):
    folders = [
        write_run(tmp_path / name, shift=shift, alpha=alpha)
        for name, shift, alpha in (("a", 0.0, 1.0), ("b", 0.1, 10.0))
    ]
    path = report.make(folders, tmp_path / "both")
    text = path.read_text()
    assert "editor.alpha" in text and "b (best)" in text


def test_many_steps_and_sites_stay_small(tmp_path):
    folder = write_run(tmp_path / "long", steps=300, sites=14, every=5)
    report.make([folder])
    assert (folder / "report" / "report.html").stat().st_size < 4 * 2**20


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty"):
        report.make([tmp_path / "empty"])
    command = [sys.executable, "-m", "report", str(tmp_path / "empty")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error:") and "Traceback" not in done.stderr


def test_a_metric_is_a_row_of_the_table(tmp_path, monkeypatch):
    row = Metric("ES_first", "first answer token right", "edited prompts whose answer begins right", better="up")
    monkeypatch.setitem(METRICS, row.name, row)
    tally = Tally()
    for value in (1.0, 0.0, 1.0, 1.0):
        tally.add("ES_first", value)
    measured = {name: (value, tally.counts[name]) for name, value in tally.means().items()}
    (entry,) = described(measured, {"ES_first": (0.25, 4)}, edits=4, step=1)
    assert (entry["protocol"], entry["value"], entry["n"], entry["before"]) == (row.protocol, 0.75, 4, 0.25)
    assert (entry["low"], entry["high"]) == interval(0.75, 4)
    folder = write_run(tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results | {"metrics": [*results["metrics"], entry]}))
    report.make([folder])
    (found,) = [line for line in table(folder) if line["metric"] == "ES_first"]
    assert (found["protocol"], number(found["value"]), number(found["n"])) == (row.protocol, 0.75, 4)
    assert (number(found["low"]), number(found["high"])) == interval(0.75, 4)
    assert f"<dt>ES_first</dt><dd>{row.meaning}</dd>" in page(folder)
    assert "| ES\\_first | 0.2500 | 0.7500 | +0.5000 |" in (folder / "report" / "table.md").read_text()
    with pytest.raises(ValueError, match="ES_second: has no row in METRICS"):
        described({"ES_second": (1.0, 1)}, None, edits=1, step=1)


def test_the_metric_table_and_the_terminals_tables_are_light():
    code = "import sys, report.metrics, report.terminal; print({'pandas', 'matplotlib', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_rows_say_order_interval_and_direction():
    names = [row["metric"] for row in described(dict.fromkeys(reversed(METRICS), (0.5, 9)), None, 9, 1)]
    assert names == list(METRICS)
    assert names[:5] == ["ES", "ES_all", "GS", "GS_all", "LS_agreement"], "what every table leads with"
    divergences = {name for name in METRICS if "_kl" in name}
    assert {name for name, row in METRICS.items() if not row.interval} == divergences
    assert {name for name, row in METRICS.items() if row.better == "down"} == divergences | {"negation_p"}
    assert len({row.meaning for row in METRICS.values()}) == len(METRICS)


def lacking(folder: Path, after: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> None:
    """Take measurements out of a run's results."""
    path = folder / "results.json"
    results = json.loads(path.read_text())
    results["metrics"] = [row for row in results["metrics"] if row["metric"] not in after]
    for row in results["metrics"]:
        if row["metric"] in before:
            row.pop("before", None)
    results["pre"] = {name: value for name, value in (results["pre"] or {}).items() if name not in before} or None
    path.write_text(json.dumps({name: value for name, value in results.items() if name not in after}))


@pytest.mark.parametrize("by", ["gain", "published"])
@pytest.mark.parametrize("before", [True, False])
def test_a_sweeps_table_and_its_search_name_the_same_winner(tmp_path, before, by):
    for job in range(5):
        words = (f"editor.alpha={job}",)
        write_run(tmp_path / str(job), before=before, overrides=words, seed=job, shift=job / 50, best=by)
    runs = load_runs([tmp_path])
    told = "objective" if by == "gain" else "mean change" if before else "mean score"
    ending = "_all" if by == "gain" else ""
    assert compare(runs).merit_name == told and compare(runs).best == 4
    lacking(tmp_path / "4", after=(f"GS{ending}",))
    lacking(tmp_path / "2", before=("LS",))
    lacking(tmp_path / "1", before=("ES", "GS", "LS", "person_score", f"ES{ending}", f"GS{ending}"))
    write_failed(tmp_path / "5")
    runs = load_runs([tmp_path])
    values: list[Any] = [merit(run.scores, run.before, by) if run.results else None for run in runs]
    values[4] = None  # it lacks what the others have
    found = compare(runs)
    assert [None if value != value else value for value in found.scores[told]] == values
    assert values[4] is None and values[5] is None and None not in values[:4]
    assert found.best == max(range(4), key=lambda job: values[job])
    assert report.sweep_table(tmp_path).splitlines()[1 + found.best].startswith(f"*  {found.best}")


def test_tables_for_papers_escape():
    assert markdown(["a|b"], [["x_y*"]]) == "| a\\|b |\n| --- |\n| x\\_y\\* |\n"
    assert r"50\% \& x\_y" in latex(["a"], [["50% & x_y"]])


def browse(path: Path, folder: Path, width: int = 1280) -> tuple[str, str, str]:
    """(DOM, messages, network log) of a page in headless Chromium."""
    assert CHROMIUM is not None
    log = folder / "net.json"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}/profile"]
    command += [f"--log-net-log={log}", f"--window-size={width},900", "--dump-dom", path.as_uri()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"HOME": str(folder)}
    )
    return done.stdout, done.stderr, log.read_text()


def asked(net_log: str) -> set[str]:
    """Network addresses that a page asked for; what Chromium asks its maker on its own is not the page's."""
    own = r"https?://[\w.-]*(google\.com|googleapis\.com|gvt1\.com|gstatic\.com)/"
    return {url for url in re.findall(r'"url":"(https?:[^"]+)"', net_log) if not re.match(own, url)}


MEASURE = """<script>
addEventListener("load", () => {
  const sizes = [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight]);
  document.body.setAttribute("data-sizes", JSON.stringify(sizes));
  document.body.setAttribute("data-wide", document.documentElement.scrollWidth > innerWidth);
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize("which", ["real", "sweep"])
def test_the_page_in_chromium(which, request, tmp_path):
    path = request.getfixturevalue(which) / "report" / "report.html"
    text = path.read_text(encoding="utf-8")
    dom, messages, net = browse(path, tmp_path)
    assert "CONSOLE" not in messages, messages
    assert asked(net) == set()
    assert figures(dom) == figures(text) and len(figures(dom)) >= 6
    copy = tmp_path / "measured.html"  # the page forbids scripts; a copy without that rule measures itself
    copy.write_text(
        re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", MEASURE + "</body>"), encoding="utf-8"
    )
    (tmp_path / "second").mkdir()
    dom, messages, _ = browse(copy, tmp_path / "second")
    (measured,) = re.findall(r'data-sizes="([^"]*)"', dom)
    sizes: list[Any] = json.loads(html.unescape(measured))
    assert len(sizes) == len(figures(text))
    assert all(complete and width > 100 and height > 100 for complete, width, height in sizes)
    assert 'data-wide="false"' in dom, "nothing sticks out at 1280 px"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_chromium_would_tell(tmp_path):
    """What the test above looks for is found where it is there."""
    path = tmp_path / "bad.html"
    path.write_text('<img src="http://example.invalid/x.png"><script>console.error("heard")</script>')
    _, messages, net = browse(path, tmp_path)
    assert "heard" in messages and "http://example.invalid/x.png" in asked(net)
