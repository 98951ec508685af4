"""The numbers of runs in the shapes that tables and figures need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from report.load import Run, number
from report.metrics import METRICS

POINTS = 1000
SCORES = ("ES", "GS", "LS", "KS", "LS_agreement")
KEYS = ("protocol", "low", "high", "n", "edits", "step", "before", "before_low", "before_high", "difference")


class Curve(NamedTuple):
    """A series of equally many x and y; None in y where nothing was measured."""

    x: Sequence[float]
    y: Sequence[float | None]


def thin(items: Sequence[Any], limit: int = POINTS) -> list[Any]:
    """At most `limit` items, evenly spread, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def curves(lines: Sequence[Mapping[str, Any]], names: Iterable[str], over: str | None = None) -> dict[str, Curve]:
    """A curve per name that has any number, over what the lines call `over` (else over 1, 2, ...); thinned."""
    kept = thin([(line[over] if over else place, line) for place, line in enumerate(lines, start=1)])
    x = [place for place, _ in kept]
    found = {name: Curve(x, [number(line.get(name)) for _, line in kept]) for name in names}
    return {name: curve for name, curve in found.items() if any(y is not None for y in curve.y)}


def metric_rows(run: Run) -> list[dict[str, Any]]:
    """The final table: metric, protocol, value, low, high, n, edits, step, before..., difference.

    Of a run that did not end the names and values before editing.
    """
    before = [{"metric": name, "value": None, "before": value} for name, value in before_scores(run).items()]
    rows = [dict.fromkeys(KEYS) | row for row in run.results.get("metrics") or before]
    for row in rows:
        row["protocol"] = row["protocol"] or (METRICS[row["metric"]].protocol if row["metric"] in METRICS else "")
        if row["value"] is not None and row["before"] is not None:
            row["difference"] = row["value"] - row["before"]
    return rows


def before_scores(run: Run) -> dict[str, float]:
    """The scores before any edit: of results.json; of a run that has none its first evaluation."""
    first = next((line for line in run.events["evaluate"] if line["edits"] == 0), {})
    told = run.results.get("pre") if run.results else first
    return {name: value for name, value in (told or {}).items() if name not in ("event", "edits")}


def final_scores(run: Run) -> dict[str, float | None]:
    """The final numbers of a run by metric."""
    return {row["metric"]: row["value"] for row in metric_rows(run)}


def final(run: Run, metric: str) -> float | None:
    """One final number of a run."""
    return final_scores(run).get(metric)


def over_time(run: Run, group: str, names: Sequence[str], over: str = "edits") -> dict[str, Curve]:
    """What was measured while editing: of the fixed sample (group "sample") or of each batch ("immediate")."""
    lines = [line[group] | {over: line[over]} for line in run.events["over_time"] if line.get(group)]
    return curves(lines, names, over)


def end_points(run: Run) -> dict[str, Curve]:
    """ES, GS, LS and their kin over all edits, before the first and after the last."""
    return curves(run.events["evaluate"], SCORES, "edits")


def downstream_lines(run: Run) -> list[dict[str, Any]]:
    """Downstream figures per evaluation: from results.json, else from metrics.jsonl as far as the run came."""
    return run.results.get("downstream") or run.events["downstream"]


def downstream_curves(run: Run) -> dict[str, Curve]:
    """The f1 of the likeliest choice per task, against edits; the average last."""
    lines = downstream_lines(run)
    names = dict.fromkeys(key for line in lines for key in line if key.endswith("/f1_new"))
    found = curves(lines, sorted(names, key=lambda key: key.startswith("average/")), "edits")
    return {name.partition("/")[0]: curve for name, curve in found.items()}


def retention(run: Run) -> pd.DataFrame:
    """The ES of each batch's edits (columns) after later steps (rows); NaN where it was not measured."""
    rows = {line["step"]: line["retention"] for line in run.events["over_time"] if line.get("retention")}
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=float).rename(columns=int).sort_index(axis="columns")
    return table.iloc[thin(range(len(table)), 120), thin(range(len(table.columns)), 120)]


def shown(value: Any) -> str:
    """A configuration value as a person writes it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
