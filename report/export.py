"""The numbers for other programs: table.csv in full precision, the final table as Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from report.load import Run, mapping, number
from report.numbers import downstream_lines, metric_rows
from report.sweep import Comparison

COLUMNS = ("run", "source", "metric", "protocol", "edits", "step", "batch", "n", "value", "low", "high")
COLUMNS += ("before", "difference")
NOT_SCORES = ("event", "edits")


def csv_table(runs: Sequence[Run]) -> str:
    """Every number in long format, floats as their shortest exact text; `source` says which record holds it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        writer.writerows({"run": run.name} | row for row in _rows(run))
    return text.getvalue()


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    results = metric_rows(run)
    protocols = {row["metric"]: row["protocol"] for row in results}
    for row in results:
        yield {"source": "results"} | row
    for line in run.events["over_time"]:
        where = {"edits": line.get("edits"), "step": line.get("step")}
        counts = mapping(line.get("n"))
        for source, key in (("over_time", "sample"), ("immediate", "immediate")):
            for name, value in _numbers(line.get(key)):
                n = counts.get(name if source == "over_time" else f"now_{name}")
                row = {"source": source, "metric": name, "protocol": protocols.get(name, ""), "n": n, "value": value}
                yield row | where
        for batch, value in _numbers(line.get("retention")):
            row = {"source": "retention", "metric": "ES", "protocol": protocols.get("ES", ""), "batch": batch}
            yield row | where | {"value": value}
    for line in downstream_lines(run):
        for name, value in _numbers(line):
            if name not in NOT_SCORES:
                yield {"source": "downstream", "metric": name, "edits": line["edits"], "value": value}


def _numbers(record: Any) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in mapping(record).items() if number(value) is not None)


def cell(value: float | None, form: str = ".4f") -> str:
    """A number for people; a dash where there is none."""
    return "–" if value is None else format(value, form)


def interval(low: float | None, high: float | None) -> str:
    """An interval for people; a dash where there is none."""
    return "–" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def final_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the final table as text."""
    head = ["metric", "before", "after", "difference", "95 % interval", "n", "protocol"]
    rows = []
    for row in metric_rows(run):
        numbers = [cell(row["before"]), cell(row["value"]), cell(row["difference"], "+.4f")]
        rows.append(
            [row["metric"], *numbers, interval(row["low"], row["high"]), cell(row["n"], ",.0f"), row["protocol"]]
        )
    return head, rows


def comparison_table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows of several runs side by side: name, varied keys, metrics, merit, state."""
    metrics = list(dict.fromkeys(row["metric"] for run in found.runs if run.results for row in metric_rows(run)))
    head = ["run", *found.keys, *metrics, found.merit_name, "state"]
    form = "+.4f" if found.relative else ".4f"
    rows = []
    for index, run in enumerate(found.runs):
        values = {row["metric"]: row["value"] for row in metric_rows(run)} if run.results else {}
        cells = [cell(values.get(name)) for name in metrics]
        setting = [found.settings[index][key] for key in found.keys]
        mark = " (best)" if index == found.best else ""
        rows.append([run.name + mark, *setting, *cells, cell(found.merits[index], form), run.state])
    return head, rows


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; bars and line ends cannot break it, tags and emphasis are shown as they are."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines) + "\n"


def _markdown_cell(text: str) -> str:
    if set(text) == {"-"}:
        return text
    for sign in "\\`*_<>[]|":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
LATEX |= {sign: "\\" + sign for sign in "&%$#_{}"} | {sign: f"${sign}$" for sign in "<>"}


def latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain LaTeX tabular that needs no package."""
    lines = [" & ".join(map(_latex_cell, line)) + r" \\" for line in (head, *rows)]
    body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
    return f"\\begin{{tabular}}{{{'l' * len(head)}}}\n{body}\n\\end{{tabular}}\n"


def _latex_cell(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))
