"""The final numbers as tables: of one run, of several, for the terminal, and for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from report.load import Run, mapping, number
from report.metrics import MERIT
from report.numbers import downstream_lines, final_scores, metric_rows
from report.sweep import Comparison, compare
from report.terminal import aligned, cell

HEAD = ["metric", "before", "after", "difference", "95 % interval", "n", "protocol"]
CSV = [
    "run",
    "source",
    "metric",
    "protocol",
    "edits",
    "step",
    "batch",
    "n",
    "value",
    "low",
    "high",
    "before",
    "difference",
]
Table = tuple[list[str], list[list[str]]]
"""Head and rows, all text."""


def csv_table(runs: Sequence[Run]) -> str:
    """Every number in long format, floats as their shortest exact text; `source` says which record holds it."""
    rows = [{"run": run.name} | row for run in runs for row in _records(run)]
    return pd.DataFrame(rows, columns=CSV, dtype=object).to_csv(index=False, lineterminator="\n")


def _records(run: Run) -> Iterator[dict[str, Any]]:
    protocols = {}
    for row in metric_rows(run):
        protocols[row["metric"]] = row["protocol"]
        yield {"source": "results"} | row
    for line in run.events["over_time"]:
        where = {"edits": line.get("edits"), "step": line.get("step")}
        for source, key, count in (("over_time", "sample", "{}"), ("immediate", "immediate", "now_{}")):
            for name, value in _numbers(line.get(key)):
                told = {
                    "metric": name,
                    "protocol": protocols.get(name),
                    "n": mapping(line.get("n")).get(count.format(name)),
                }
                yield {"source": source, "value": value} | told | where
        for batch, value in _numbers(line.get("retention")):
            told = {"metric": "ES", "protocol": protocols.get("ES"), "batch": batch}
            yield {"source": "retention", "value": value} | told | where
    for line in downstream_lines(run):
        for name, value in _numbers(line):
            if name not in ("event", "edits"):
                yield {"source": "downstream", "metric": name, "edits": line["edits"], "value": value}


def _numbers(record: Any) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in mapping(record).items() if number(value) is not None)


def interval(low: float | None, high: float | None) -> str:
    """An interval for people; a dash where there is none."""
    return "–" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def final_table(run: Run) -> Table:
    """The final table of one run."""
    rows = []
    for row in metric_rows(run):
        numbers = [(row["before"], ".4f"), (row["value"], ".4f"), (row["difference"], "+.4f")]
        cells = [cell(value, form, "–") for value, form in numbers]
        bounds = interval(row["low"], row["high"])
        rows.append([row["metric"], *cells, bounds, cell(row["n"], ",.0f", "–"), row["protocol"]])
    return HEAD, rows


def comparison_table(found: Comparison) -> Table:
    """Several runs side by side: name, varied keys, metrics, merit, state."""
    metrics = list(dict.fromkeys(row["metric"] for run in found.runs if run.results for row in metric_rows(run)))
    rows = _side_by_side(found, metrics, "+.4f" if found.relative else ".4f", "–")
    for index, row in enumerate(rows):
        row[0] += " (best)" if index == found.best else ""
    return ["run", *found.keys, *metrics, found.merit_name, "state"], rows


def sweep_text(runs: Sequence[Run]) -> str:
    """A table for the terminal; the best job is marked with *, and what stopped the others is listed below."""
    found = compare(runs)
    head = ["", "job", *found.keys, *MERIT, found.merit_name, "state"]
    rows = [
        ["*" if index == found.best else "", *row] for index, row in enumerate(_side_by_side(found, MERIT, ".4f", "-"))
    ]
    lines = [aligned(head, rows, left=(*range(len(found.keys) + 2), len(head) - 1))]
    if found.best is not None:
        lines.append(f"* best by {found.merit_name} of ES, GS and LS" + " since before editing" * found.relative)
    return "\n".join(lines + [f"{run.name}: {run.state}: {run.error}" for run in found.failed])


def _side_by_side(found: Comparison, metrics: Sequence[str], form: str, missing: str) -> list[list[str]]:
    """Per run its name, its values of the varied keys, the metrics, the merit in `form`, and its state."""
    rows = []
    for index, run in enumerate(found.runs):
        scores = final_scores(run) if run.results else {}
        cells = [cell(scores.get(name), missing=missing) for name in metrics]
        merit = cell(number(float(found.scores[found.merit_name][index])), form, missing)
        rows.append([run.name, *found.settings.iloc[index], *cells, merit, run.state])
    return rows


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; bars and line ends cannot break it, tags and emphasis are shown as they are."""
    escapes = str.maketrans({sign: "\\" + sign for sign in "\\`*_<>[]|"})
    lines = [[" ".join(text.translate(escapes).split()) for text in line] for line in (head, *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], ["---"] * len(head), *lines[1:]))


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
LATEX |= {sign: "\\" + sign for sign in "&%$#_{}"} | {sign: f"${sign}$" for sign in "<>"}


def latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain LaTeX tabular that needs no package."""
    lines = [
        " & ".join(" ".join(text.translate(str.maketrans(LATEX)).split()) for text in line) + r" \\"
        for line in (head, *rows)
    ]
    body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
    return f"\\begin{{tabular}}{{{'l' * len(head)}}}\n{body}\n\\end{{tabular}}\n"
