"""The numbers of runs in the shapes that tables and figures need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from files import flatten
from report.glossary import PROTOCOLS
from report.load import Run, dictionaries, mapping, number

POINTS = 1000
SCORES = ("ES", "GS", "LS", "KS", "LS_agreement")
DOWNSTREAM = ("f1_new", "accuracy_new", "f1", "accuracy")
TIDY = ("value", "low", "high", "n", "edits", "step", "before", "before_low", "before_high")


class Curve(NamedTuple):
    """A series of equally many x and y; None in y where nothing was measured."""

    x: list[float]
    y: list[float | None]


def thin(items: Sequence[Any], limit: int = POINTS) -> list[Any]:
    """At most `limit` items, evenly spread, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


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
    tidy = {"metric": name, "protocol": str(row.get("protocol") or PROTOCOLS.get(name, ""))}
    tidy |= {key: number(row.get(key)) for key in TIDY}
    both = tidy["value"] is not None and tidy["before"] is not None
    return tidy | {"difference": tidy["value"] - tidy["before"] if both else None}


def before_scores(run: Run) -> dict[str, float]:
    """The scores before any edit: of results.json, else of the run's first evaluation."""
    found = mapping(run.results.get("pre"))
    if not found:
        found = next((line for line in run.events["evaluate"] if line.get("edits") == 0), {})
    return {k: v for k, v in found.items() if k not in ("event", "edits") and number(v) is not None}


def final(run: Run, metric: str) -> float | None:
    """One final number of a run."""
    rows = [row["value"] for row in metric_rows(run) if row["metric"] == metric]
    return rows[0] if rows else None


def score_curves(run: Run) -> dict[str, Curve]:
    """The fixed sample's scores against edits, by metric."""
    lines = [(number(line.get("edits")), mapping(line.get("sample"))) for line in run.events["over_time"]]
    lines = [(edits, sample) for edits, sample in lines if edits is not None]
    names = [name for name in (*SCORES, "LS_kl") if any(number(sample.get(name)) is not None for _, sample in lines)]
    return {name: Curve([e for e, _ in lines], [number(s.get(name)) for _, s in lines]) for name in names}


def end_points(run: Run) -> dict[str, Curve]:
    """ES, GS, LS and their kin over all edits, before the first and after the last, by metric."""
    lines = [line for line in run.events["evaluate"] if number(line.get("edits")) is not None]
    names = [name for name in SCORES if any(number(line.get(name)) is not None for line in lines)]
    return {name: Curve([ln["edits"] for ln in lines], [number(ln.get(name)) for ln in lines]) for name in names}


def downstream_lines(run: Run) -> list[dict[str, Any]]:
    """Downstream figures per evaluation: from results.json, else from metrics.jsonl as far as the run came."""
    lines = dictionaries(run.results.get("downstream")) or run.events["downstream"]
    return [line for line in lines if number(line.get("edits")) is not None]


def downstream_curves(run: Run) -> tuple[str, dict[str, Curve]]:
    """The name of the downstream figure shown, and per task its curve against edits; the average last."""
    lines = downstream_lines(run)
    for figure in DOWNSTREAM:
        names = dict.fromkeys(key for line in lines for key in line if key.partition("/")[2] == figure)
        tasks = sorted(names, key=lambda key: key.startswith("average/"))
        if tasks:
            x = [line["edits"] for line in lines]
            return figure, {t.partition("/")[0]: Curve(x, [number(line.get(t)) for line in lines]) for t in tasks}
    return "", {}


def retention(run: Run) -> tuple[list[int], list[int], list[list[float | None]]]:
    """Steps measured at (rows), batches (columns), and the ES of a batch's edits at a step."""
    lines = [line for line in run.events["over_time"] if mapping(line.get("retention")) and number(line.get("step"))]
    batches = sorted({int(batch) for line in lines for batch in line["retention"] if str(batch).isdigit()})
    lines, batches = thin(lines, 120), thin(batches, 120)
    table = [[number(line["retention"].get(str(batch))) for batch in batches] for line in lines]
    return [line["step"] for line in lines], batches, table


def differing(runs: Sequence[Run]) -> list[str]:
    """The configuration keys in which the runs differ; those without a configuration do not count."""
    flats = [flatten(run.config) for run in runs if run.config]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    return [key for key in keys if len({repr(flat.get(key)) for flat in flats}) > 1]


def shown(value: Any) -> str:
    """A configuration value as a person writes it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
