"""Several runs side by side: what varies between them, which is best, and the figures of them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.patches import Rectangle

from files import flatten
from report import style
from report.load import Run
from report.metrics import MERIT, merit
from report.numbers import Curve, before_scores, downstream_curves, end_points, final_scores, over_time, shown
from report.style import Plate

QUIET = ("wandb.name", "model_cache_dir", "resume")  # keys that name things and change no number
DOWNSTREAM = "downstream average"
MOST = 24  # runs beyond which curves are not told apart


@dataclass(frozen=True)
class Comparison:
    """Runs, and a line each: their values of the keys that vary; ES, GS, LS and last the merit, NaN where unfinished.

    The merit is `relative` where something was measured before editing. `best` is the place of the finished run with
    the highest merit, the first of equals; None where there is no choice.
    """

    runs: list[Run]
    keys: list[str]
    settings: pd.DataFrame
    scores: pd.DataFrame
    merit_name: str
    relative: bool
    best: int | None
    failed: list[Run]


def compare(runs: Sequence[Run]) -> Comparison:
    """Find what varies (in the overrides of a sweep, else in the configurations) and what is best."""
    after = [final_scores(run) if run.finished else {} for run in runs]
    before = [before_scores(run) for run in runs]
    relative = any(name in found for run, found in zip(runs, before, strict=True) if run.finished for name in MERIT)
    scores = pd.DataFrame(after, columns=MERIT, dtype=float)
    name = "mean change" if relative else "mean score"
    scores[name] = pd.Series([merit(*pair) for pair in zip(after, before, strict=True)], dtype=float)
    best = int(scores[name].argmax()) if scores[name].count() > 1 else None
    settings, failed = _settings(runs), [run for run in runs if not run.finished]
    return Comparison(list(runs), [*map(str, settings)], settings, scores, name, relative, best, failed)


def _settings(runs: Sequence[Run]) -> pd.DataFrame:
    """Per run its values of the keys that vary."""
    pairs = [[word.lstrip("+").partition("=") for word in run.overrides] for run in runs]
    given = [{key: value for key, equals, value in found if equals and not key.startswith("hydra.")} for found in pairs]
    table = pd.DataFrame(given, dtype=object)
    varied = table.nunique(dropna=False) > 1
    if not all(given) or not varied.any():
        table = pd.DataFrame([{k: shown(v) for k, v in flatten(run.config).items()} for run in runs], dtype=object)
        varied = table[[bool(run.config) for run in runs]].fillna("null").nunique() > 1
    return table[[key for key in varied.index[varied] if key not in QUIET]].fillna("")


def ordered(values: Sequence[str]) -> list[str]:
    """Distinct values: numbers by size, else as they came."""
    distinct = list(dict.fromkeys(values))
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct


def comparison_figures(found: Comparison) -> Iterator[Plate | None]:
    """Heat maps or a line over the swept keys, then curves of every run; None for what cannot be drawn."""
    if len(found.keys) == 2 and (found.settings.nunique() > 1).all() and not found.settings.duplicated().any():
        for metric in found.scores.columns[found.scores.notna().any()]:
            yield _heat_map(found, metric)
    elif len(found.keys) == 1:
        yield _over_one_key(found)
    if len(found.runs) <= MOST:
        yield from (_curves(found, name) for name in (*MERIT, "KS", DOWNSTREAM))


def _heat_map(found: Comparison, metric: str) -> Plate:
    """A score over the two swept keys; the best run is framed, failed ones are named."""
    rows, columns = (ordered(list(found.settings[key])) for key in found.keys)
    values = found.scores[metric]
    table = values.set_axis(pd.MultiIndex.from_frame(found.settings)).unstack().reindex(index=rows, columns=columns)
    places = [(rows.index(row), columns.index(column)) for row, column in found.settings.itertuples(index=False)]
    figure, axes = style.canvas(5.6, max(2.6, 1.3 + 0.55 * len(rows)))
    image = style.heat(axes, table)
    for run, (y, x), missing in zip(found.runs, places, values.isna(), strict=True):
        if missing:
            axes.text(x, y, f"{run.name}\n{run.state}", ha="center", va="center", fontsize=8, color="#a11")
        if not run.finished:
            look: dict[str, Any] = {"facecolor": "#eeeeee", "edgecolor": style.FAINT, "hatch": "///", "linewidth": 0}
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, zorder=1.5, **look))
    words = f"{metric} after the last edit"
    if metric == found.merit_name:
        words = "Mean over ES, GS and LS of " + ("after minus before" if found.relative else "the score after")
    if found.best is not None:
        y, x = places[found.best]
        axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor="#D55E00", linewidth=3))
        words += "; framed: the best job"
    words += ", hatched: jobs without a result." if found.failed else "."
    axes.set(ylabel=found.keys[0], xlabel=found.keys[1])
    figure.colorbar(image, ax=axes, pad=0.02)
    title = f"{metric[0].upper()}{metric[1:]} over {' and '.join(found.keys)}"
    return Plate(f"sweep_{metric.replace(' ', '_')}", title, words, figure)


def _over_one_key(found: Comparison) -> Plate | None:
    """ES, GS, LS over the one swept key; evenly spaced, for values may be names or span decades."""
    (key,) = found.keys
    names = ordered(list(found.settings[key]))
    places = [names.index(value) for value in found.settings[key]]
    table = found.scores[list(MERIT)].set_axis(places).sort_index()
    curves = {str(name): Curve(list(kept.index), list(kept)) for name in table if len(kept := table[name].dropna())}
    figure = style.curve_figure(curves, style.SHARE, key, share=True) if len(names) > 1 else None
    if figure is None:
        return None
    (axes,) = figure.axes
    axes.set_xticks(range(len(names)), [name if len(name) < 18 else name[:16] + "…" for name in names])
    for index, (run, place) in enumerate(zip(found.runs, places, strict=True)):
        if index == found.best:
            axes.axvspan(place - 0.15, place + 0.15, color="#f5e2d6", zorder=0)
        if not run.finished:
            axes.text(place, 0.5, f"{run.name}: {run.state}", rotation=90, ha="center", va="center", color="#a11")
    words = "After the last edit; the values are evenly spaced, the lines between are no measurement."
    words += " Shaded: the best." if found.best is not None else ""
    return Plate("sweep", f"ES, GS, LS against {key}", words, figure)


def _curves(found: Comparison, name: str) -> Plate | None:
    """One score of every run against edits; without samples on the way, the end points alone."""
    curves, dotted = {}, 0
    for index, run in enumerate(found.runs):
        measured = downstream_curves(run) if name == DOWNSTREAM else over_time(run, "sample", [name])
        curve = measured.get(name.removeprefix("downstream "))
        if curve is None:
            curve = end_points(run).get(name, Curve([], []))
            dotted += len(curve.x) > 1
        setting = ", ".join(found.settings.iloc[index, :2])
        label = f"{run.name} ({setting})" if setting and len(run.name) + len(setting) < 40 else run.name
        # a run that stopped early may have its first point alone
        curves[label] = curve if len(curve.x) > 1 else Curve([], [])
    caption = "Fixed sample of the edits of each run, measured while editing."
    if name == DOWNSTREAM:
        caption = "Mean over the downstream tasks."
    elif dotted == sum(len(curve.x) > 0 for curve in curves.values()):
        caption = "All edits, before the first and after the last; nothing was measured between (eval.every=0)."
    elif dotted:
        caption += " Runs that measured nothing on the way have their end points over all edits."
    figure = style.curve_figure(curves, name, share=True)
    if figure is None:
        return None
    figure.set_figheight(3.5 + 0.12 * min(len(curves), 8))
    return Plate(f"runs_{name.replace(' ', '_')}", f"{name} against edits", caption, figure)
