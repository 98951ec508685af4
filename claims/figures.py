"""A figure for each claim, as small SVG files in the look of the reports."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from files import write_whole
from report.style import ABOVE, COLOURS, EDITS, LOOKS, MARKERS, canvas, label_axes, lines, save

from .evidence import MAIN, Evidence
from .plan import PARTS, Setting, label

ALPHA = 10  # of stableedit and of diagonal


def draw(part: str, evidence: Evidence, settings: dict[str, Setting], folder: Path) -> None:
    """Write FOLDER/PART.svg, where a run of the part is there."""
    labels = {name: label(part, settings[name]) for name in PARTS[part].settings if evidence.runs[name]}
    drawing = curves if PARTS[part].panels else compared
    if labels:
        with matplotlib.rc_context(dict[Any, Any](LOOKS)):
            write_whole(folder / f"{part}.svg", save(drawing(part, evidence, labels))[1])


def curves(part: str, evidence: Evidence, labels: dict[str, str]) -> Figure:
    """A line for each setting: the mean over seeds at each place that every seed has; of shifts the first seed."""
    group, panels = PARTS[part].measured, PARTS[part].panels
    figure = Figure(figsize=(3.8 * len(panels), 3.3))
    for axes, (column, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        drawn = {}
        for name, shown in labels.items():
            by_seed = evidence.curves(name, group, column).pivot(index="at", columns="seed", values=column)
            drawn[shown] = by_seed.iloc[:, 0] if group == "step" else by_seed.dropna().mean(axis=1)
        lines(axes, drawn, markers=group != "step", legend=column == next(iter(panels)))
        label_axes(axes, title, "step" if group == "step" else EDITS)
    return figure


def compared(part: str, evidence: Evidence, labels: dict[str, str]) -> Figure:
    """ES, GS and LS of each setting with their intervals; of whitening against alpha, the diagonal's as crosses."""
    by_alpha = part == "whitening"
    figure, axes = canvas() if by_alpha else canvas(max(7.2, 1.25 * len(labels)), 3.4)
    places = {name: float(name.removeprefix("alpha_")) for name in labels if name.startswith("alpha_")}
    places = places | {"stableedit": ALPHA} if by_alpha else {name: place for place, name in enumerate(labels)}
    for index, (metric, colour) in enumerate(zip(MAIN, COLOURS, strict=False)):
        look = {"label": metric, "color": colour, "marker": MARKERS[index], "ls": "-" if by_alpha else "none"}
        found = [(place, e) for name, place in places.items() if (e := evidence.pooled(name, metric))]
        table = pd.DataFrame([(x, e.value, e.value - e.low, e.high - e.value) for x, e in found], columns=[*"xyab"])
        table = table.sort_values("x").assign(x=table["x"] + (0 if by_alpha else (index - 1) * 0.2))
        axes.errorbar(table["x"], table["y"], table[["a", "b"]].T, markersize=5, capsize=2, **look)
        if by_alpha and (diagonal := evidence.pooled("diagonal", metric)):
            axes.plot([ALPHA * 1.25], [diagonal.value], "x", color=colour, markersize=7)
    if by_alpha:
        axes.set_xscale("log")
        axes.set_xticks(sorted(places.values()), [f"{alpha:g}" for alpha in sorted(places.values())])
        axes.set_xlabel(f"alpha (crosses: per-coordinate normalization, alpha {ALPHA})")
    else:  # lines short enough to stand beside their neighbours
        names = [textwrap.fill(name, 14, break_long_words=False, break_on_hyphens=False) for name in labels.values()]
        axes.set_xticks(range(len(labels)), names)
    axes.set_ylim(bottom=0)
    figure.legend(loc=ABOVE, ncols=3)
    return figure
