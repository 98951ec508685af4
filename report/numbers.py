"""The numbers of runs in the shapes that tables and figures need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from report.load import Run, dictionaries, mapping, number
from report.metrics import METRICS

POINTS = 1000
SCORES = ("ES", "GS", "LS", "KS", "LS_agreement")
DOWNSTREAM = ("f1_new", "accuracy_new", "f1", "accuracy")
TIDY = ("value", "low", "high", "n", "edits", "step", "before", "before_low", "before_high")


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
    places = [number(line.get(over)) if over else i for i, line in enumerate(lines, start=1)]
    kept = thin([(x, line) for x, line in zip(places, lines, strict=True) if x is not None])
    x = [place for place, _ in kept]
    found = {name: Curve(x, [number(line.get(name)) for _, line in kept]) for name in names}
    return {name: curve for name, curve in found.items() if any(y is not None for y in curve.y)}


def metric_rows(run: Run) -> list[dict[str, Any]]:
    """The final table: metric, protocol, value, low, high, n, edits, step, before..., difference.

    From results.json `metrics`; older runs have only names and values; a run that did not end has only `before`.
    """
    rows = [row for row in dictionaries(run.results.get("metrics")) if row.get("metric")]
    if not rows:
        before, counts = before_scores(run), mapping(run.results.get("counts"))
        after = {name: value for name, value in run.results.items() if number(value) is not None}
        where = {"edits": counts.get("edits"), "step": None}
        rows = [{"metric": n, "value": after.get(n), "before": before.get(n)} | where for n in after or before]
    return [_tidy(row) for row in rows]


def _tidy(row: dict[str, Any]) -> dict[str, Any]:
    name = str(row["metric"])
    told = row.get("protocol") or (METRICS[name].protocol if name in METRICS else "")
    tidy = {key: number(row.get(key)) for key in TIDY}
    value, before = tidy["value"], tidy["before"]
    difference = value - before if value is not None and before is not None else None
    return {"metric": name, "protocol": str(told)} | tidy | {"difference": difference}


def before_scores(run: Run) -> dict[str, float]:
    """The scores before any edit: of results.json, else of the run's first evaluation."""
    found = mapping(run.results.get("pre"))
    if not found:
        found = next((line for line in run.events["evaluate"] if line.get("edits") == 0), {})
    return {k: v for k, v in found.items() if k not in ("event", "edits") and number(v) is not None}


def final_scores(run: Run) -> dict[str, float | None]:
    """The final numbers of a run by metric."""
    return {row["metric"]: row["value"] for row in reversed(metric_rows(run))}


def final(run: Run, metric: str) -> float | None:
    """One final number of a run."""
    return final_scores(run).get(metric)


def over_time(run: Run, group: str, names: Sequence[str], over: str = "edits") -> dict[str, Curve]:
    """What was measured while editing: of the fixed sample (group "sample") or of each batch ("immediate")."""
    lines = [(line.get(over), mapping(line.get(group))) for line in run.events["over_time"]]
    return curves([found | {over: place} for place, found in lines if found], names, over)


def end_points(run: Run) -> dict[str, Curve]:
    """ES, GS, LS and their kin over all edits, before the first and after the last."""
    return curves(run.events["evaluate"], SCORES, "edits")


def downstream_lines(run: Run) -> list[dict[str, Any]]:
    """Downstream figures per evaluation: from results.json, else from metrics.jsonl as far as the run came."""
    lines = dictionaries(run.results.get("downstream")) or run.events["downstream"]
    return [line for line in lines if number(line.get("edits")) is not None]


def downstream_curves(run: Run) -> tuple[str, dict[str, Curve]]:
    """The name of the downstream figure shown, and per task its curve against edits; the average last."""
    lines = downstream_lines(run)
    for figure in DOWNSTREAM:
        names = dict.fromkeys(key for line in lines for key in line if key.partition("/")[2] == figure)
        if names:
            found = curves(lines, sorted(names, key=lambda key: key.startswith("average/")), "edits")
            return figure, {name.partition("/")[0]: curve for name, curve in found.items()}
    return "", {}


def retention(run: Run) -> pd.DataFrame:
    """The ES of each batch's edits (columns) after later steps (rows); NaN where it was not measured."""
    found = {
        line["step"]: mapping(line.get("retention")) for line in run.events["over_time"] if number(line.get("step"))
    }
    rows = {step: row for step, row in found.items() if row}
    batches = sorted({int(batch) for row in rows.values() for batch in row if str(batch).isdigit()})
    kept, batches = thin(list(rows), 120), thin(batches, 120)
    table = [[number(rows[step].get(str(batch))) for batch in batches] for step in kept]
    return pd.DataFrame(table, kept, batches, dtype=float)


def shown(value: Any) -> str:
    """A configuration value as a person writes it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
