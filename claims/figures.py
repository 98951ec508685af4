"""A figure for each claim, as small SVG files in the look of the reports."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from files import write_whole
from report.style import COLOURS, EDITS, LOOKS, MARKERS, canvas, label_axes, legend_above, lines, save

from .evidence import MAIN, Evidence
from .plan import PARTS, Setting, label

CURVES = {
    "normalization": ("sample", {"ES": "ES", "LS": "LS"}),
    "cumulative": ("immediate", {"ES": "ES right after writing", "GS": "GS right after writing"}),
    "shifts": ("step", {"norm": "norm of the shift", "cosine": "|cosine| to the last shift"}),
}
"""The parts that show curves: what is measured when, and a panel for each of these numbers."""


def draw(part: str, evidence: Evidence, settings: dict[str, Setting], folder: Path) -> None:
    """Write FOLDER/PART.svg, where a run of the part is there."""
    labels = {name: label(part, settings[name]) for name in PARTS[part].settings if evidence.runs[name]}
    draw_part = curves if part in CURVES else whitening if part == "whitening" else compared
    if labels:
        with matplotlib.rc_context(dict[Any, Any](LOOKS)):
            write_whole(folder / f"{part}.svg", save(draw_part(part, evidence, labels))[1])


def curves(part: str, evidence: Evidence, labels: dict[str, str]) -> Figure:
    """A line for each setting: the mean over seeds at each place that every seed has; of shifts the first seed."""
    group, panels = CURVES[part]
    figure = Figure(figsize=(3.8 * len(panels), 3.3))
    for axes, (column, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        drawn = {}
        for name, shown in labels.items():
            by_seed = evidence.curves(name, group, column).pivot(index="at", columns="seed", values=column)
            drawn[shown] = by_seed.iloc[:, 0] if group == "step" else by_seed.dropna().mean(axis=1)
        lines(axes, drawn, markers=group != "step", legend=column == next(iter(panels)))
        label_axes(axes, title, "step" if group == "step" else EDITS)
    return figure


def whitening(_: str, evidence: Evidence, labels: dict[str, str]) -> Figure:
    """ES, GS and LS against alpha; the diagonal's as crosses at its alpha."""
    figure, axes = canvas()
    alphas = [(name, float(name.removeprefix("alpha_"))) for name in labels if name.startswith("alpha_")]
    alphas = sorted([*alphas, ("stableedit", 10.0)], key=lambda pair: pair[1])
    for metric, colour in zip(MAIN, COLOURS, strict=False):
        _errors(axes, evidence, alphas, metric, linestyle="-")
        diagonal = evidence.pooled("diagonal", metric)
        if diagonal:
            axes.plot([10 * 1.25], [diagonal.value], "x", color=colour, markersize=7)
    axes.set_xscale("log")
    axes.set_xticks([alpha for _, alpha in alphas], [f"{alpha:g}" for _, alpha in alphas])
    axes.set_xlabel("alpha (crosses: per-coordinate normalization, alpha 10)")
    return _finished(figure, axes)


def compared(_: str, evidence: Evidence, labels: dict[str, str]) -> Figure:
    """ES, GS and LS of each setting with their intervals."""
    figure, axes = canvas(max(7.2, 1.25 * len(labels)), 3.4)
    for index, metric in enumerate(MAIN):
        places = [(name, place + (index - 1) * 0.2) for place, name in enumerate(labels)]
        _errors(axes, evidence, places, metric, linestyle="none")
    # lines short enough to stand beside their neighbours
    names = [textwrap.fill(name, 14, break_long_words=False, break_on_hyphens=False) for name in labels.values()]
    axes.set_xticks(range(len(labels)), names)
    return _finished(figure, axes)


def _errors(axes: Axes, evidence: Evidence, places: Iterable[tuple[str, float]], metric: str, linestyle: str) -> None:
    """A metric of settings at their places on the x axis, with intervals."""
    found = [(x, estimate) for name, x in places if (estimate := evidence.pooled(name, metric))]
    around = [[e.value - e.low for _, e in found], [e.high - e.value for _, e in found]]
    x, y, index = [place for place, _ in found], [estimate.value for _, estimate in found], MAIN.index(metric)
    axes.errorbar(
        x, y, around, label=metric, color=COLOURS[index], marker=MARKERS[index], ls=linestyle, markersize=5, capsize=2
    )


def _finished(figure: Figure, axes: Axes) -> Figure:
    axes.set_ylim(bottom=0)
    legend_above(axes)
    return figure
