"""The numbers of runs in the shapes that tables and figures need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from report.load import Run
from report.metrics import METRICS, merit

POINTS = 1000
SCORES = ("ES", "GS", "LS", "KS", "LS_agreement")
KEYS = ("protocol", "low", "high", "n", "edits", "step", "before", "before_low", "before_high", "difference")


def thin(count: int, limit: int = POINTS) -> list[int]:
    """At most `limit` of so many places, evenly spread, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()


def curves(lines: Sequence[Mapping[str, Any]], names: Iterable[str], over: str | None = None) -> dict[str, pd.Series]:
    """A curve per name that has any number, over what the lines call `over` (else over 1, 2, ...); thinned.

    Its index is x; NaN in y where nothing was measured.
    """
    table = pd.DataFrame(lines, index=[line[over] for line in lines] if over else range(1, len(lines) + 1))
    table = table.iloc[thin(len(table))].reindex(columns=list(names)).astype(float).dropna(axis="columns", how="all")
    return {str(name): curve for name, curve in table.items()}


def metric_rows(run: Run) -> list[dict[str, Any]]:
    """The final table: metric, protocol, value, low, high, n, edits, step, before..., difference.

    Of a run that did not end the names and values before editing.
    """
    before = [
        {"metric": name, "protocol": METRICS[name].protocol, "value": None, "before": value}
        for name, value in before_scores(run).items()
    ]
    rows = [dict.fromkeys(KEYS) | row for row in run.results.get("metrics") or before]
    for row in rows:
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


def run_merit(run: Run) -> float | None:
    """The merit of a finished run by its final numbers; None of any other."""
    return merit(final_scores(run), before_scores(run)) if run.finished else None


def over_time(run: Run, group: str, names: Iterable[str], over: str = "edits") -> dict[str, pd.Series]:
    """What was measured while editing: of the fixed sample (group "sample") or of each batch ("immediate")."""
    lines = [line[group] | {over: line[over]} for line in run.events["over_time"] if line.get(group)]
    return curves(lines, names, over)


def end_points(run: Run) -> dict[str, pd.Series]:
    """ES, GS, LS and their kin over all edits, before the first and after the last."""
    return curves(run.events["evaluate"], SCORES, "edits")


def downstream_curves(run: Run) -> dict[str, pd.Series]:
    """The f1 of the likeliest choice per task, against edits; the average last."""
    lines = run.events["downstream"]
    names = dict.fromkeys(key for line in lines for key in line if key.endswith("/f1_new"))
    return {name.partition("/")[0]: curve for name, curve in curves(lines, names, "edits").items()}


def shown(value: Any) -> str:
    """A configuration value as a person writes it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
