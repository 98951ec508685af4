"""A report: figures, tables, and report.html, one file that needs nothing else and escapes whatever is data."""

from __future__ import annotations

import base64
import shlex
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import pandas as pd

from config.check import ConfigError
from config.sites import fold_sites
from files import printable, write_whole
from report import terminal
from report.comparison import Table, best_words, compare, comparison_figures, comparison_table, shown
from report.figures import run_figures
from report.latex import of_run, of_runs
from report.load import Run, load_runs
from report.metrics import METRICS
from report.style import LOOKS, save

HERE = Path(__file__).resolve().parent
HEAD = ("metric", "before", "after", "gain", "95 % interval", "n", "protocol")
LONG = ["run", "source", "metric", "protocol", "edits", "step", "batch", "n"]
LONG += ["value", "low", "high", "before", "difference"]
MARKDOWN = str.maketrans({sign: "\\" + sign for sign in "\\`*_<>[]|"})
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
TEMPLATES.filters |= {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "shown": shown,
    "printable": printable,
}
TEMPLATES.globals |= {
    "metrics": METRICS.values(),
    "quoted": shlex.join,
    "best_words": best_words,
    "remarks": terminal.remarks,
    "shown": shown,
    "folded": fold_sites,
}


def make(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """As report.make."""
    runs = load_runs(run_dirs)
    out = out or (run_dirs[0] / "report" if len(run_dirs) == 1 else Path("outputs/comparison"))
    if out.resolve() == HERE:
        raise ConfigError(f"--out {out}: is the program's own folder; name another")
    found = compare(runs) if len(runs) > 1 else None
    with matplotlib.rc_context(LOOKS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks
        plates = [plate for plate in (comparison_figures(found) if found else run_figures(runs[0])) if plate]
        for plate in plates:
            png, plate.svg = save(plate.figure)
            write_whole(out / "figures" / f"{plate.name}.png", png)
            write_whole(out / "figures" / f"{plate.name}.svg", plate.svg)
    long, table = long_table(runs), comparison_table(found) if found else final_table(runs[0])
    write_whole(out / "table.csv", long.map(no_formula).to_csv(index=False, lineterminator="\n"))
    write_whole(out / "table.md", markdown(*table))
    write_whole(out / "table.tex", of_runs(found) if found else of_run(runs[0]))
    # what the glossary explains; downstream figures by the last part of their names
    named = {name.rpartition("/")[2] for name in [*long["metric"], *long["protocol"].dropna()]}
    named |= {plate.name for plate in plates} | ({"95 % interval"} if long["low"].notna().any() else set())
    data = {"runs": runs, "found": found, "table": table, "plates": plates, "named": named}
    write_whole(out / "report.html", TEMPLATES.get_template("page.html.j2").render(data, final_table=final_table))
    return out / "report.html"


def long_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Every number in long format, as it is; `source` says which record holds it."""
    rows = [{"run": run.name} | row for run in runs for row in _records(run)]
    table = pd.DataFrame(rows, columns=LONG, dtype=object)
    return table.assign(difference=table["value"].astype(float) - table["before"].astype(float))


def no_formula(cell: Any) -> Any:
    """A cell that no spreadsheet runs: text that starts as a formula does gets the quote that says it is text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t")) else cell


def _records(run: Run) -> Iterator[dict[str, Any]]:
    protocols = {row["metric"]: row["protocol"] for row in run.rows}
    yield from ({"source": "results"} | row for row in run.rows)
    for line in run.events["over_time"]:
        for source, key in (("over_time", "sample"), ("immediate", "immediate"), ("retention", "retention")):
            for name, value in line.get(key, {}).items():
                metric, batch = ("ES", name) if source == "retention" else (name, None)
                n = None if batch else line["n"].get(metric if source == "over_time" else f"now_{metric}")
                row = {"source": source, "metric": metric, "protocol": protocols.get(metric), "batch": batch, "n": n}
                yield row | {"edits": line["edits"], "step": line["step"], "value": value}
    for line in run.events["downstream"]:
        for name, value in line.items():
            if name not in ("event", "edits"):
                yield {"source": "downstream", "metric": name, "edits": line["edits"], "value": value}


def final_table(run: Run) -> Table:
    """Head and rows of the final table as text."""
    return HEAD, terminal.metric_rows(run.rows, " to ", ".4f", ",.0f", "–")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; bars and line ends cannot break it, tags and emphasis are shown as they are."""
    lines = [[" ".join(text.translate(MARKDOWN).split()) for text in line] for line in (head, *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], ["---"] * len(head), *lines[1:]))
