"""Tables for papers: booktabs, the unedited model first, intervals as small print, bold what is surely the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from report.comparison import Comparison
from report.load import Run
from report.metrics import LEAD
from report.terminal import remarks

ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
ESCAPES |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
NEEDS = "% \\usepackage{booktabs}\n"
NAMES = ("dataset.name", "model.name", "editor.name")
Row = Mapping[str, Any]


def escaped(text: str) -> str:
    """A text as LaTeX prints it, in one line."""
    return "".join(ESCAPES.get(char, char) for char in " ".join(text.split()))


def latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A tabular of plain texts."""
    return tabular([escaped(name) for name in head], [[[escaped(cell) for cell in row] for row in rows]])


def tabular(head: Sequence[str], groups: Sequence[Sequence[Sequence[str]]], title: str = "") -> str:
    """A booktabs tabular of cells that are LaTeX, with a rule between groups of rows, below a line of title."""
    top = [f"\\multicolumn{{{len(head)}}}{{l}}{{{title}}} \\\\", r"\midrule"] if title else []
    body = "\n\\midrule\n".join("\n".join(" & ".join(row) + r" \\" for row in rows) for rows in groups)
    lines = [r"\toprule", *top, " & ".join(head) + r" \\", r"\midrule", body, r"\bottomrule"]
    columns = "l" + "r" * (len(head) - 1)
    return NEEDS + "\n".join([f"\\begin{{tabular}}{{{columns}}}", *lines, r"\end{tabular}"]) + "\n"


def number(row: Row, *, bold: bool = False) -> str:
    """A value with its interval as small print."""
    value, low, high = row.get("value"), row.get("low"), row.get("high")
    if value is None:
        return "--"
    text = f"\\textbf{{{value:.3f}}}" if bold else f"{value:.3f}"
    return text if low is None or high is None else f"{text} {{\\scriptsize {low:.3f}--{high:.3f}}}"


def unedited(row: Row) -> Row:
    """The same metric before any edit."""
    return {"value": row.get("before"), "low": row.get("before_low"), "high": row.get("before_high")}


def name_of(run: Run, keys: Sequence[str] = NAMES) -> str:
    """What a run is of: data, model and editor by name."""
    return " · ".join(filter(None, (str((run.config.get(k.split(".")[0]) or {}).get("name") or "") for k in keys)))


def of_run(run: Run) -> str:
    """A run's metrics: unedited, edited, gain."""
    rows = []
    for row in run.rows:
        value, before = row.get("value"), row.get("before")
        gain = "--" if value is None or before is None else f"{value - before:+.3f}"
        rows.append([escaped(row["metric"]), number(unedited(row)), number(row), gain])
    title = escaped("; ".join([name_of(run) or run.name, *remarks(run.results)[:1]])).replace("·", r"$\cdot$")
    return tabular(["metric", "unedited", "edited", "gain"], [rows], title)


def of_runs(found: Comparison) -> str:
    """Several runs: those of the same data and model together, below the unedited model."""
    tables = [{row["metric"]: row for row in run.rows} for run in found.runs]
    metrics = [name for name in (*LEAD, "LS") if any(name in table for table in tables)]
    groups: dict[str, list[int]] = {}
    for place, run in enumerate(found.runs):
        if run.finished:
            groups.setdefault(name_of(run, NAMES[:2]), []).append(place)
    body = []
    for data, places in groups.items():
        first = next((tables[place] for place in places if any("before" in row for row in tables[place].values())), {})
        lines = [[escaped(f"{data}: unedited"), *(number(unedited(first.get(name, {}))) for name in metrics)]]
        best = {name: surely_best([tables[place].get(name, {}) for place in places]) for name in metrics}
        for at, place in enumerate(places):
            cells = [number(tables[place].get(name, {}), bold=best[name] == at) for name in metrics]
            lines.append([escaped(_label(found, place)), *cells])
        body.append([[cell.replace("·", r"$\cdot$") for cell in line] for line in lines])
    return tabular(["", *map(escaped, metrics)], body)


def _label(found: Comparison, place: int) -> str:
    """The editor's name, and the values of the other keys that vary."""
    run, values = found.runs[place], found.settings.iloc[place]
    own = [f"{key.removeprefix('editor.')} {values[key]}" for key in found.keys if key not in NAMES and values[key]]
    return ", ".join([name_of(run, NAMES[2:]) or run.name, *own])


def surely_best(rows: Sequence[Row]) -> int | None:
    """The place of the highest value whose interval lies above that of every other; None where none does."""
    table = pd.DataFrame(rows, index=range(len(rows))).reindex(columns=["value", "low", "high"]).astype(float)
    table = table.dropna(subset="value").sort_values("value", ascending=False, kind="stable")
    if len(table) < 2:
        return None
    others = table.iloc[1:]
    return int(table.index[0]) if table["low"].iloc[0] > others["high"].fillna(others["value"]).max() else None
