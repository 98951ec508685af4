"""How figures look, and how one becomes a PNG and an SVG: colours for the colour-blind, and for grey paper too."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from report.numbers import Curve

# Okabe and Ito's palette without its yellow, which white paper swallows
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLES = ("-", (0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)), (0, (4, 1)), "-.", "--")
FAINT = "#8a8a8a"
HERE = Path(__file__).parent
LOOKS: Any = matplotlib.rc_params_from_file(HERE / "looks.mplstyle", use_default_template=False)
WORDS = yaml.safe_load((HERE / "figures.yaml").read_text(encoding="utf-8"))
SHARE, EDITS = "share of answer tokens", "edits written"


@dataclass
class Plate:
    """A figure with its words; `wide` ones take the page's whole width; `svg` is there once it is drawn."""

    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False
    svg: str = ""


def plate(name: str, figure: Figure | None, more: str = "", *, wide: bool = False) -> Plate | None:
    """A figure with its words of figures.yaml, and more of them; None without a figure."""
    return None if figure is None else Plate(name, WORDS[name]["title"], WORDS[name]["caption"] + more, figure, wide)


def canvas(width: float = 5.6, height: float = 3.5) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def save(figure: Figure) -> tuple[bytes, str]:
    """A figure as PNG and as SVG; laid out once, drawn once for each."""
    with matplotlib.rc_context(LOOKS):
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
        figure.set_layout_engine("none")  # the places found for the first format serve the second
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return png.getvalue(), "<svg" + svg.getvalue().partition("<svg")[2]


def lines(axes: Axes, curves: Mapping[str, Curve], *, markers: bool = True, legend: bool = True) -> None:
    """Draw curves with a legend above; more than eight are thin, graded in colour, with the legend beside.

    A curve without a number takes its colour and mark but is not drawn.
    """
    many = len(curves) > len(COLOURS)
    graded = matplotlib.colormaps["viridis"].resampled(len(curves) + 2)
    for index, (label, curve) in enumerate(curves.items()):
        look: dict[str, Any] = {"color": graded(index), "linestyle": STYLES[index % 3], "linewidth": 0.9}
        if not many:
            look = {"color": COLOURS[index], "linestyle": STYLES[index], "linewidth": 1.6 if markers else 1.2}
        if markers and not many:
            look |= {"marker": MARKERS[index], "markersize": 4.5, "markevery": max(1, len(curve.y) // 12)}
        if any(value is not None for value in curve.y):
            # matplotlib leaves labels that start with an underscore out of legends
            label = f" {label}" if label.startswith("_") else label
            axes.plot(curve.x, np.asarray(curve.y, dtype=float), label=label, **look)
    if many and len(curves) <= 40:
        axes.figure.legend(loc="outside right upper", ncols=1 if len(curves) <= 16 else 2, fontsize=7.5)
    if not many and legend and len(curves) > 1:
        longest = max(map(len, curves))
        columns = 5 if longest < 8 else 3 if longest < 22 else 2 if longest < 34 else 1
        legend_above(axes, min(len(curves), columns))


def curve_figure(
    curves: Mapping[str, Curve], y: str, x: str = EDITS, *, share: bool = False, markers: bool = True
) -> Figure | None:
    """Curves on axes of their own, labelled; y from 0 up, for a share to 1. None where there is no number."""
    if all(value is None for curve in curves.values() for value in curve.y):
        return None
    figure, axes = canvas()
    lines(axes, curves, markers=markers)
    axes.set_ylim(bottom=0)
    if share:
        share_axes(axes)
    axes.set_ylabel(y)
    edits_axis(axes, x)
    return figure


def legend_above(axes: Axes, columns: int = 3) -> None:
    """The legend of what has been drawn, over the axes."""
    axes.figure.legend(loc="outside upper center", ncols=columns)


def share_axes(axes: Axes) -> None:
    """Shares of answer tokens from 0 to 1 against edits."""
    axes.set(ylim=(-0.03, 1.03), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0], ylabel=SHARE)
    edits_axis(axes)


def edits_axis(axes: Axes, label: str = EDITS) -> None:
    """An x axis of whole numbers with commas."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def heat(axes: Axes, table: pd.DataFrame, high: float | None = None, digits: int = 3) -> AxesImage:
    """A heat map with the numbers in its cells where there is room; `high`: colours are for 0 to it, not as found.

    Cells without a number are grey.
    """
    axes.grid(False)
    axes.set_facecolor("#eeeeee")
    axes.spines[:].set_visible(False)
    low = None if high is None else 0.0
    image = axes.imshow(table, cmap="cividis", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    for axis, names in ((axes.xaxis, table.columns), (axes.yaxis, table.index)):
        every = -(-len(names) // 12)
        axis.set_ticks(range(0, len(names), every), [str(name) for name in names[::every]])
        axis.set_tick_params(length=0)
    for (y, x), cell in np.ndenumerate(table.to_numpy()):
        if max(table.shape) <= 12 and not np.isnan(cell):
            red, green, blue, _ = image.cmap(image.norm(cell))
            colour = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"
            size = 9 if len(table.columns) <= 6 else 7.5
            axes.text(x, y, f"{cell:.{digits}f}", ha="center", va="center", color=colour, fontsize=size)
    return image
