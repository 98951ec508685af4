"""The figures of several runs: heat maps over two swept keys, a line over one, curves of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd
from matplotlib.patches import Rectangle

from report.load import Run
from report.metrics import MERIT
from report.numbers import SCORES, Curve, downstream_curves, end_points, over_time
from report.style import COLOURS, FAINT, MARKERS, Plate, canvas, curve_figure, heat, legend_above, share_axes
from report.sweep import Comparison, ordered

MOST = 24  # runs beyond which curves are not told apart


def comparison_figures(found: Comparison) -> Iterator[Plate | None]:
    """Heat maps or a line over the swept keys, then curves of every run; None for what cannot be drawn."""
    if len(found.keys) == 2 and (found.settings.nunique() > 1).all() and not found.settings.duplicated().any():
        for metric in found.scores.columns[found.scores.notna().any()]:
            yield _heat_map(found, metric)
    elif len(found.keys) == 1:
        yield _over_one_key(found)
    if len(found.runs) <= MOST:
        for metric in (*MERIT, "KS"):
            yield _curves(found, metric, lambda run, name=metric: over_time(run, "sample", SCORES).get(name))
        yield _curves(found, "downstream average", lambda run: downstream_curves(run)[1].get("average"))


def _heat_map(found: Comparison, metric: str) -> Plate:
    """A score over the two swept keys; the best run is framed, failed ones are named."""
    rows, columns = (ordered(list(found.settings[key])) for key in found.keys)
    values = found.scores[metric]
    table = values.set_axis(pd.MultiIndex.from_frame(found.settings)).unstack().reindex(index=rows, columns=columns)
    places = [(rows.index(row), columns.index(column)) for row, column in found.settings.itertuples(index=False)]
    figure, axes = canvas(5.6, max(2.6, 1.3 + 0.55 * len(rows)))
    image = heat(axes, table)
    for run, (y, x), missing in zip(found.runs, places, values.isna(), strict=True):
        if missing:
            axes.text(x, y, f"{run.name}\n{run.state}", ha="center", va="center", fontsize=8, color="#a11")
        if not run.finished:
            axes.add_patch(
                Rectangle((x - 0.5, y - 0.5), 1, 1, fc="#eeeeee", ec=FAINT, hatch="///", linewidth=0, zorder=1.5)
            )
    if found.best is not None:
        y, x = places[found.best]
        axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor="#D55E00", linewidth=3))
    axes.set_ylabel(found.keys[0])
    axes.set_xlabel(found.keys[1])
    figure.colorbar(image, ax=axes, pad=0.02)
    words = f"{metric} after the last edit"
    if metric == found.merit_name:
        words = "Mean over ES, GS and LS of " + ("after minus before" if found.relative else "the score after")
    words += "; framed: the best job" if found.best is not None else ""
    words += ", hatched: jobs without a result." if found.failed else "."
    title = f"{metric[0].upper()}{metric[1:]} over {' and '.join(found.keys)}"
    return Plate(f"sweep_{metric.replace(' ', '_')}", title, words, figure)


def _over_one_key(found: Comparison) -> Plate | None:
    """ES, GS, LS over the one swept key; evenly spaced, for values may be names or span decades."""
    (key,) = found.keys
    names, series = ordered(list(found.settings[key])), found.scores[list(MERIT)]
    if len(names) < 2 or series.isna().all(axis=None):
        return None
    figure, axes = canvas()
    places = [names.index(value) for value in found.settings[key]]
    for index, (metric, values) in enumerate(series.set_axis(places).sort_index().items()):
        kept = values.dropna()
        axes.plot(kept, label=metric, color=COLOURS[index], marker=MARKERS[index], linestyle=":", linewidth=1.2)
    if found.best is not None:
        best = places[found.best]
        axes.axvspan(best - 0.15, best + 0.15, color="#f5e2d6", zorder=0, label="best")
    for run, place in zip(found.runs, places, strict=True):
        if not run.finished:
            axes.text(place, 0.5, f"{run.name}: {run.state}", rotation=90, ha="center", va="center", color="#a11")
    share_axes(axes)
    axes.set_xticks(range(len(names)), [name if len(name) < 18 else name[:16] + "…" for name in names])
    axes.set_xlabel(key)
    legend_above(axes, 4)
    return Plate("sweep", f"ES, GS, LS against {key}", "After the last edit; the values are evenly spaced.", figure)


def _curves(found: Comparison, name: str, pick: Callable[[Run], Curve | None]) -> Plate | None:
    """One score of every run against edits; without samples on the way, the end points alone."""
    curves, dotted = {}, 0
    for index, run in enumerate(found.runs):
        curve = pick(run)
        if curve is None:
            curve = end_points(run).get(name, Curve([], []))
            dotted += len(curve.x) > 1
        # a run that stopped early may have its first point alone
        curves[_label(found, index)] = curve if len(curve.x) > 1 else Curve([], [])
    drawn = sum(any(y is not None for y in curve.y) for curve in curves.values())
    if not drawn:
        return None
    caption = "Fixed sample of the edits of each run, measured while editing."
    if name.startswith("downstream"):
        caption = "Mean over the downstream tasks."
    elif dotted == drawn:
        caption = "All edits, before the first and after the last; nothing was measured between (eval.every=0)."
    elif dotted:
        caption += " Runs that measured nothing on the way have their end points over all edits."
    figure = curve_figure(curves, name, share=True, height=3.5 + 0.12 * min(len(curves), 8))
    assert figure is not None
    return Plate(f"runs_{name.replace(' ', '_')}", f"{name} against edits", caption, figure)


def _label(found: Comparison, index: int) -> str:
    setting = ", ".join(found.settings.iloc[index, :2])
    name = found.runs[index].name
    return f"{name} ({setting})" if setting and len(name) + len(setting) < 40 else name
