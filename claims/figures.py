"""A figure for each claim, as small SVG files in the look of the reports."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from files import write_whole
from report.numbers import Curve
from report.style import COLOURS, LOOKS, MARKERS, canvas, edits_axis, legend_above, lines, save

from .evidence import MAIN, Evidence
from .plan import PARTS, Setting, label

Labels = dict[str, str]


def draw(part: str, evidence: Evidence, settings: dict[str, Setting], folder: Path) -> None:
    """Write FOLDER/PART.svg, where a run of the part is there."""
    labels = {name: label(part, settings[name]) for name in PARTS[part].settings if evidence.runs(name)}
    if labels:
        with matplotlib.rc_context(LOOKS):
            _, svg = save(FIGURES.get(part, compared)(evidence, labels))
        write_whole(folder / f"{part}.svg", svg)


def normalization(evidence: Evidence, labels: Labels) -> Figure:
    """ES and LS of the fixed sample against edits, a line per setting."""
    tables = {title: evidence.over_time(name, "sample") for name, title in labels.items()}
    return _curves(tables, "edits", {"ES": "ES", "LS": "LS"})


def cumulative(evidence: Evidence, labels: Labels) -> Figure:
    """ES and GS of a batch right after it was written against edits."""
    tables = {title: evidence.over_time(name, "immediate") for name, title in labels.items()}
    return _curves(tables, "edits", {metric: f"{metric} right after writing" for metric in ("ES", "GS")})


def shifts(evidence: Evidence, labels: Labels) -> Figure:
    """The shift's norm and its |cosine| to the last one against steps, first seed."""
    tables = {title: evidence.shifts(name) for name, title in labels.items()}
    first = {title: table[table["seed"] == table["seed"].min()] for title, table in tables.items()}
    return _curves(first, "step", {"norm": "norm of the shift", "cosine": "|cosine| to the last shift"})


def _curves(tables: dict[str, pd.DataFrame], x: str, panels: dict[str, str]) -> Figure:
    """A panel for each column against x, a line for each table: the mean over seeds at each x that every seed has."""
    figure = Figure(figsize=(3.8 * len(panels), 3.3))
    for axes, (column, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        curves = {}
        for name, table in tables.items():
            means = table.pivot(index=x, columns="seed", values=column) if column in table else pd.DataFrame()
            means = (means.dropna() if len(means.columns) > 1 else means).mean(axis=1)
            curves[name] = Curve(list(means.index), [None if pd.isna(y) else y for y in means])
        lines(axes, curves, markers=x == "edits", legend=column == next(iter(panels)))
        edits_axis(axes, "step" if x == "step" else "edits written")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(title)
    return figure


def whitening(evidence: Evidence, labels: Labels) -> Figure:
    """ES, GS and LS against alpha; the diagonal's as crosses at its alpha."""
    figure, axes = canvas()
    alphas = {name: float(name.removeprefix("alpha_")) for name in labels if name.startswith("alpha_")}
    alphas |= {"stableedit": 10.0} if "stableedit" in labels else {}
    alphas = dict(sorted(alphas.items(), key=lambda pair: pair[1]))
    for index, metric in enumerate(MAIN):
        _errors(axes, evidence, alphas.items(), metric, linestyle="-")
        diagonal = evidence.pooled("diagonal", metric)
        if diagonal:
            axes.plot([10 * 1.25], [diagonal.value], "x", color=COLOURS[index], markersize=7)
    axes.set_xscale("log")
    axes.set_xticks(list(alphas.values()), [f"{alpha:g}" for alpha in alphas.values()])
    axes.set_xlabel("alpha (crosses: per-coordinate normalization, alpha 10)")
    axes.set_ylim(bottom=0)
    legend_above(axes)
    return figure


def compared(evidence: Evidence, labels: Labels) -> Figure:
    """ES, GS and LS of each setting with their intervals."""
    figure, axes = canvas(max(7.2, 1.25 * len(labels)), 3.4)
    for index, metric in enumerate(MAIN):
        places = ((name, i + (index - 1) * 0.2) for i, name in enumerate(labels))
        _errors(axes, evidence, places, metric, linestyle="none")
    # lines short enough to stand beside their neighbours
    names = [textwrap.fill(name, 14, break_long_words=False, break_on_hyphens=False) for name in labels.values()]
    axes.set_xticks(range(len(labels)), names)
    axes.set_ylim(bottom=0)
    legend_above(axes)
    return figure


def _errors(axes: Axes, evidence: Evidence, places: Iterable[tuple[str, float]], metric: str, linestyle: str) -> None:
    """A metric of settings at their places on the x axis, with intervals."""
    found = [(x, estimate) for name, x in places if (estimate := evidence.pooled(name, metric))]
    values = [estimate.value for _, estimate in found]
    around = [[e.value - e.low for _, e in found], [e.high - e.value for _, e in found]]
    look = {"color": COLOURS[MAIN.index(metric)], "marker": MARKERS[MAIN.index(metric)], "linestyle": linestyle}
    axes.errorbar([x for x, _ in found], values, yerr=around, label=metric, markersize=5, capsize=2, **look)


FIGURES = {"normalization": normalization, "cumulative": cumulative, "whitening": whitening, "shifts": shifts}
