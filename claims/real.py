"""Real records: what the sweeps of real_*, and the searches and scorings before them, gave, as docs/real.md.

python -m claims.real RUN_OR_SWEEP_DIR ...   keeps their figures in claims/real.yaml, in place of what is there of the
same data set and editor, and writes the page and the README's first table; without a folder these alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from claims.templates import environment, marks, put_between
from config.check import ConfigError
from config.sites import fold_sites
from data.source import PROJECT
from files import write_whole
from report.load import Run, load_runs
from report.metrics import LEAD, merit

FIGURES = Path(__file__).with_name("real.yaml")
PAGE = PROJECT / "docs" / "real.md"
BEGIN, END = marks("real", "python -m claims.real")
SETS = {"zsre": "zsRE", "counterfact": "CounterFact", "wikibigedit": "WikiBigEdit", "qaedit": "QAEdit"}
RIDGE = ("stableedit", "ultraedit")
ROWS = (*RIDGE, "margin", "finetune", "in_context")
"""In the order of the tables, below the unedited model."""
SPOKEN = ("ES_exact", "GS_exact", "ES_contain", "GS_contain", "LS_same")
SHORT = ("ES_all", "GS_all", "LS_agreement")
KEPT = (*LEAD, "LS", *SPOKEN)
Figures = dict[str, dict[str, Any]]
"""By data set: what was asked of how many edits; `runs` and `searches` by editor, `formats` by prompt_format."""


def taken(figures: Figures, runs: Sequence[Run]) -> Figures:
    """The figures with those of these runs.

    Raises:
        ConfigError: a run that is not finished, or is of other data.
    """
    for run in runs:
        name, editor = (str((run.config.get(key) or {}).get("name")) for key in ("dataset", "editor"))
        if not run.finished or name not in SETS:
            why = f"is of {name}" if run.finished else run.error
            raise ConfigError(f"{run.path}: {why}; name finished runs of real_*")
        of = figures.setdefault(name, {"formats": {}, "runs": {}, "searches": {}})
        if found := run.results.get("tune"):
            trials = sorted(map(tried, found["trials"]))
            of["searches"][editor] = {"edits": len(found["rows"]), "trials": trials}
        elif "scored" in run.results:
            of["formats"][run.config["dataset"]["prompt_format"]] = said(run)
        else:
            of |= asked(run)
            of["runs"][label(run, editor)] = figures_of(run)
    return figures


def label(run: Run, editor: str) -> str:
    """The editor, and the step size where the command line gives another one than the experiment."""
    given = [word for word in run.overrides if word.startswith("editor.lr=")]
    return f"{editor}, lr {run.config['editor']['lr']:.0e}" if given else editor


def tried(trial: Mapping[str, Any]) -> list[float | None]:
    """Step size, objective, and what that is made of, of one trial of a search."""
    return [trial["lr"], *(rounded(value) for value in (trial["objective"], *map((trial["scores"] or {}).get, SHORT)))]


def asked(run: Run) -> dict[str, Any]:
    """What a run asked, which the others of its data set ask too."""
    counts = {row["metric"]: row["n"] for row in run.rows}
    return {
        "edits": run.results["counts"]["edits"],
        "n_edits": run.config["dataset"]["n_edits"],
        "prompt_format": run.config["dataset"]["prompt_format"],
        "scored": counts["ES"],
        "generated": counts.get("ES_exact", 0),
        "versions": run.results["versions"],
    }


def said(run: Run) -> dict[str, Any]:
    """What the unedited model answers in a prompt format, and how often nothing."""
    with open(run.path / "edits.jsonl", encoding="utf-8") as file:
        asked = [one for line in file for one in json.loads(line)["after"].values()]
    texts = [one["generated"] for each in asked for one in each.get("each", [each]) if one.get("generated") is not None]
    scores = {name: round(value, 3) for name, value in run.scores.items() if name in KEPT and value is not None}
    return {"answers": len(texts), "empty": sum(not text.strip() for text in texts), "scores": scores}


def figures_of(run: Run) -> dict[str, Any]:
    """A run's numbers by metric, [value, low, high] after and before; where and with what it wrote, what it cost."""
    rows: dict[str, Any] = {}
    for row in run.rows:
        if row["metric"] in KEPT:
            keys = ("value", "low", "high"), ("before", "before_low", "before_high")
            rows[row["metric"]] = [[rounded(row.get(key)) for key in side] for side in keys]
    return {
        "lr": run.config["editor"].get("lr"),
        "sites": fold_sites(run.config["model"]["edit_modules"]),
        "cpu_seconds": run.results["cpu_seconds"],
        "metrics": rows,
    }


def rounded(value: float | None) -> float | None:
    """What is kept of a number."""
    return None if value is None else round(value, 4)


def unedited(of: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers before any edit, which every run of a data set shares."""
    first = next(iter(of["runs"].values()))["metrics"]
    return {name: [before, before] for name, (_, before) in first.items()}


def objective(metrics: Mapping[str, Any]) -> float:
    """By which step sizes were chosen (report.metrics.merit)."""
    after, before = ({name: sides[at][0] for name, sides in metrics.items()} for at in (0, 1))
    return merit(after, before) or 0.0


def cell(metrics: Mapping[str, Any], name: str) -> str:
    """A number with its interval, where it has one."""
    value, low, high = metrics.get(name, [[None] * 3])[0]
    return "–" if value is None else f"{value:.3f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")


def short(metrics: Mapping[str, Any]) -> str:
    """What the objective is made of."""
    return " / ".join(f"{metrics[name][0][0]:.2f}" for name in SHORT)


def rows(*sets: Mapping[str, Any]) -> list[str]:
    """The rows of a table below the unedited model: whose runs there are, in order."""
    found = {name for of in sets for name in of["runs"] if name != "none"}
    return sorted(found, key=lambda name: (ROWS.index(name.partition(",")[0]), name))


def of_ridge(of: Mapping[str, Any], metric: str) -> list[float]:
    """A metric's values of the ridge editors at their own step sizes, in order."""
    return sorted(of["runs"][name]["metrics"][metric][0][0] for name in RIDGE if name in of["runs"])


def step_sizes(figures: Figures) -> list[tuple[str, float]]:
    """What the editors that have a step size wrote with, finetune last."""
    lrs = {name: of["runs"][name]["lr"] for of in figures.values() for name in rows(of) if name in of["searches"]}
    return sorted(lrs.items(), key=lambda pair: ROWS.index(pair[0]))


def with_runs(figures: Figures) -> Figures:
    """The data sets of which there is a run, in order."""
    return {name: figures[name] for name in SETS if figures.get(name, {}).get("runs")}


def page(figures: Figures) -> str:
    """docs/real.md."""
    return TEMPLATES.get_template("real.md.j2").render(figures=with_runs(figures))


def summary(figures: Figures) -> str:
    """The table that leads the page."""
    return TEMPLATES.get_template("real_summary.md.j2").render(figures=with_runs(figures))


def main(folders: Sequence[Path]) -> None:
    """Take in what the folders hold, write the page and the README's table, print that."""
    figures: Figures = yaml.safe_load(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    if folders:
        figures = taken(figures, load_runs(folders))
        write_whole(FIGURES, yaml.safe_dump(figures, default_flow_style=None, width=200))
    write_whole(PAGE, page(figures))
    put_between(PROJECT / "README.md", BEGIN, END, summary(figures))
    print(summary(figures))


TEMPLATES = environment(
    sets=SETS, lead=LEAD, spoken=SPOKEN, cell=cell, short=short, rows=rows, of_ridge=of_ridge, taken=step_sizes,
    unedited=unedited, objective=objective,
)  # fmt: skip

if __name__ == "__main__":
    try:
        main([Path(word) for word in sys.argv[1:]])
    except (ConfigError, OSError) as error:
        sys.exit(f"error: {error}")
