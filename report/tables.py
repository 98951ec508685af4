"""The final numbers as tables: of one run, of several, for the terminal, and for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from report.comparison import Comparison, compare
from report.load import Run, number
from report.metrics import MERIT
from report.numbers import downstream_lines, final_scores, metric_rows
from report.terminal import aligned, cell
from report.terminal import metric_rows as written

HEAD = ("metric", "before", "after", "difference", "95 % interval", "n", "protocol")
LONG = ["run", "source", "metric", "protocol", "edits", "step", "batch", "n"]
LONG += ["value", "low", "high", "before", "difference"]
Rows = list[tuple[str, ...]]


def csv_table(runs: Sequence[Run]) -> str:
    """Every number in long format, floats as their shortest exact text; `source` says which record holds it."""
    rows = [{"run": run.name} | row for run in runs for row in _records(run)]
    return pd.DataFrame(rows, columns=LONG, dtype=object).to_csv(index=False, lineterminator="\n")


def _records(run: Run) -> Iterator[dict[str, Any]]:
    results = metric_rows(run)
    protocols = {row["metric"]: row["protocol"] for row in results}
    yield from ({"source": "results"} | row for row in results)
    for line in run.events["over_time"]:
        for source, key in (("over_time", "sample"), ("immediate", "immediate"), ("retention", "retention")):
            for name, value in _numbers(line.get(key) or {}):
                metric, batch = ("ES", name) if source == "retention" else (name, None)
                n = None if batch else line["n"].get(metric if source == "over_time" else f"now_{metric}")
                row = {"source": source, "metric": metric, "protocol": protocols.get(metric), "batch": batch, "n": n}
                yield row | {"edits": line["edits"], "step": line["step"], "value": value}
    for line in downstream_lines(run):
        for name, value in _numbers(line):
            if name != "edits":
                yield {"source": "downstream", "metric": name, "edits": line["edits"], "value": value}


def _numbers(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in record.items() if number(value) is not None)


def final_table(run: Run) -> tuple[Sequence[str], Rows]:
    """Head and rows of the final table as text."""
    return HEAD, written(metric_rows(run), " to ", ".4f", ",.0f", "–")


def comparison_table(found: Comparison) -> tuple[Sequence[str], Rows]:
    """Head and rows of several runs side by side: name, varied keys, metrics, merit, state."""
    metrics = list(dict.fromkeys(name for run in found.runs if run.results for name in final_scores(run)))
    rows = _side_by_side(found, metrics, "+.4f" if found.relative else ".4f", "–")
    rows = [(row[0] + " (best)" * (index == found.best), *row[1:]) for index, row in enumerate(rows)]
    return ("run", *found.keys, *metrics, found.merit_name, "state"), rows


def sweep_text(runs: Sequence[Run]) -> str:
    """A table for the terminal; the best job is marked with *, and what stopped the others is listed below."""
    found = compare(runs)
    head = ("", "job", *found.keys, *MERIT, found.merit_name, "state")
    rows = [("*" * (at == found.best), *row) for at, row in enumerate(_side_by_side(found, MERIT, ".4f", "-"))]
    lines = [aligned(head, rows, left=(*range(len(found.keys) + 2), len(head) - 1))]
    if found.best is not None:
        lines.append(f"* best by {found.merit_name} of ES, GS and LS" + " since before editing" * found.relative)
    return "\n".join(lines + [f"{run.name}: {run.state}: {run.error}" for run in found.failed])


def _side_by_side(found: Comparison, metrics: Sequence[str], form: str, missing: str) -> Rows:
    """Per run its name, its values of the varied keys, the metrics, the merit in `form`, and its state."""
    rows = []
    for run, setting, merit in zip(found.runs, found.settings.values, found.scores[found.merit_name], strict=True):
        scores = final_scores(run) if run.results else {}
        cells = [cell(scores.get(name), missing=missing) for name in metrics]
        rows.append((run.name, *setting, *cells, cell(number(merit), form, missing), run.state))
    return rows


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; bars and line ends cannot break it, tags and emphasis are shown as they are."""
    escapes = str.maketrans({sign: "\\" + sign for sign in "\\`*_<>[]|"})
    lines = [[" ".join(text.translate(escapes).split()) for text in line] for line in (head, *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], ["---"] * len(head), *lines[1:]))


def latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain LaTeX tabular that needs no package."""
    escapes = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    escapes |= {sign: "\\" + sign for sign in "&%$#_{}"} | {sign: f"${sign}$" for sign in "<>"}
    cells = [
        ["".join(escapes.get(sign, sign) for sign in " ".join(text.split())) for text in line] for line in (head, *rows)
    ]
    lines = [" & ".join(line) + r" \\" for line in cells]
    body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
    return f"\\begin{{tabular}}{{{'l' * len(head)}}}\n{body}\n\\end{{tabular}}\n"
