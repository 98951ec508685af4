"""The figures of several runs: heat maps over two swept keys, bars over one, curves of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from matplotlib.patches import Rectangle

from report.load import Run
from report.numbers import Curve, downstream_curves, end_points, final, score_curves, thin
from report.style import COLOURS, FAINT, MARKERS, Plate, canvas, edits_axis, heat, legend_above, lines, share_axis
from report.sweep import MAIN, Comparison, ordered

MOST = 24  # runs beyond which curves are not told apart


def comparison_figures(found: Comparison) -> Iterator[Plate]:
    """Heat maps or a line over the swept keys, then curves of every run."""
    if len(found.keys) == 2 and all(len(ordered([s[key] for s in found.settings])) > 1 for key in found.keys):
        cells = [tuple(setting.values()) for setting in found.settings]
        if len(set(cells)) == len(cells):
            yield from _heat_maps(found)
    elif len(found.keys) == 1:
        yield from _over_one_key(found)
    if len(found.runs) <= MOST:
        for metric in (*MAIN, "KS"):
            yield from _curves(found, metric, lambda run, name=metric: score_curves(run).get(name))
        yield from _curves(found, "downstream average", lambda run: downstream_curves(run)[1].get("average"))


def _values(found: Comparison, metric: str) -> list[float | None]:
    if metric == found.merit_name:
        return found.merits
    return [final(run, metric) if run.finished else None for run in found.runs]


def _heat_maps(found: Comparison) -> Iterator[Plate]:
    """One heat map per metric over the two swept keys; the best run is framed, failed ones are named."""
    rows, columns = (ordered([setting[key] for setting in found.settings]) for key in found.keys)
    places = [(rows.index(s[found.keys[0]]), columns.index(s[found.keys[1]])) for s in found.settings]
    for metric in (*MAIN, found.merit_name):
        values = _values(found, metric)
        if all(value is None for value in values):
            continue
        table: list[list[float | None]] = [[None] * len(columns) for _ in rows]
        figure, axes = canvas(5.6, max(2.6, 1.3 + 0.55 * len(rows)))
        for run, (y, x), value in zip(found.runs, places, values, strict=True):
            table[y][x] = value
            if value is None:
                axes.text(x, y, f"{run.name}\n{run.state}", ha="center", va="center", fontsize=8, color="#a11")
        image = heat(axes, table, rows, columns)
        for run, (y, x) in zip(found.runs, places, strict=True):
            if not run.finished:
                box = {"facecolor": "#eeeeee", "edgecolor": FAINT, "hatch": "///", "linewidth": 0, "zorder": 1.5}
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **box))
        if found.best is not None:
            y, x = places[found.best]
            axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor="#D55E00", linewidth=3))
        axes.set_ylabel(found.keys[0])
        axes.set_xlabel(found.keys[1])
        figure.colorbar(image, ax=axes, pad=0.02)
        caption = _heat_caption(found, metric)
        title = f"{metric[0].upper()}{metric[1:]} over {' and '.join(found.keys)}"
        yield Plate(f"sweep_{metric.replace(' ', '_')}", title, caption, figure)


def _heat_caption(found: Comparison, metric: str) -> str:
    words = f"{metric} after the last edit"
    if metric == found.merit_name:
        words = "Mean over ES, GS and LS of " + ("after minus before" if "change" in metric else "the score after")
    words += "; framed: the best job" if found.best is not None else ""
    return words + (", hatched: jobs without a result." if found.failed else ".")


def _over_one_key(found: Comparison) -> Iterator[Plate]:
    """ES, GS, LS over the one swept key; evenly spaced, for values may be names or span decades."""
    key = found.keys[0]
    names = ordered([setting[key] for setting in found.settings])
    series = {metric: _values(found, metric) for metric in MAIN}
    if len(names) < 2 or all(value is None for values in series.values() for value in values):
        return
    figure, axes = canvas()
    x = [names.index(setting[key]) for setting in found.settings]
    for index, (metric, values) in enumerate(series.items()):
        points = sorted((a, b) for a, b in zip(x, values, strict=True) if b is not None)
        look = {"color": COLOURS[index], "marker": MARKERS[index], "linestyle": ":", "linewidth": 1.2}
        axes.plot([a for a, _ in points], [b for _, b in points], label=metric, **look)
    if found.best is not None:
        axes.axvspan(x[found.best] - 0.15, x[found.best] + 0.15, color="#f5e2d6", zorder=0, label="best")
    for run, place in zip(found.runs, x, strict=True):
        if not run.finished:
            axes.text(place, 0.5, f"{run.name}: {run.state}", rotation=90, ha="center", va="center", color="#a11")
    axes.set_xticks(range(len(names)), [name if len(name) < 18 else name[:16] + "…" for name in names])
    axes.set_xlabel(key)
    axes.set_ylabel("share of answer tokens")
    share_axis(axes)
    legend_above(axes, 4)
    yield Plate("sweep", f"ES, GS, LS against {key}", "After the last edit; the values are evenly spaced.", figure)


def _curves(found: Comparison, name: str, pick: Callable[[Run], Curve | None]) -> Iterator[Plate]:
    """One score of every run against edits; without samples on the way, the end points alone."""
    curves, dotted = {}, 0
    for index, run in enumerate(found.runs):
        curve = pick(run)
        if curve is None:
            curve = end_points(run).get(name, Curve([], []))
            dotted += len(curve.x) > 1
        kept = thin(list(zip(curve.x, curve.y, strict=True)))
        kept = kept if len(kept) > 1 else []  # a run that stopped early may have its first point alone
        curves[_label(found, index)] = Curve([x for x, _ in kept], [y for _, y in kept])
    drawn = sum(any(y is not None for y in curve.y) for curve in curves.values())
    if not drawn:
        return
    figure, axes = canvas(5.6, 3.5 + 0.12 * min(len(curves), 8))
    lines(axes, curves)
    edits_axis(axes)
    axes.set_ylabel(name)
    share_axis(axes)
    caption = "Fixed sample of the edits of each run, measured while editing."
    if name.startswith("downstream"):
        caption = "Mean over the downstream tasks."
    elif dotted == drawn:
        caption = "All edits, before the first and after the last; nothing was measured between (eval.every=0)."
    elif dotted:
        caption += " Runs that measured nothing on the way have their end points over all edits."
    yield Plate(f"runs_{name.replace(' ', '_')}", f"{name} against edits", caption, figure)


def _label(found: Comparison, index: int) -> str:
    setting = ", ".join(found.settings[index][key] for key in found.keys[:2])
    name = found.runs[index].name
    return f"{name} ({setting})" if setting and len(name) + len(setting) < 40 else name
