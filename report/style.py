"""How figures look, and how one becomes a PNG and an SVG: colours for the colour-blind, and for grey paper too."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

HERE = Path(__file__).parent
LOOKS: Any = matplotlib.rc_params_from_file(HERE / "looks.mplstyle", use_default_template=False)
COLOURS, MARKERS, STYLES = (LOOKS["axes.prop_cycle"].by_key()[key] for key in ("color", "marker", "linestyle"))
FAINT = "#8a8a8a"
ABOVE: Final = "outside upper center"
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
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    figure.set_layout_engine("none")  # the places found for the first format serve the second
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return png.getvalue(), "<svg" + svg.getvalue().partition("<svg")[2]


def lines(axes: Axes, curves: Mapping[str, pd.Series], *, markers: bool = True, legend: bool = True) -> None:
    """Draw curves with a legend above; more than eight are thin, graded in colour, with the legend beside.

    A curve without a number takes its colour and mark but is not drawn.
    """
    count = len(curves)
    look: dict[str, Any] = {} if markers else {"marker": "", "linewidth": 1.2}
    if many := count > len(COLOURS):
        graded = matplotlib.colormaps["viridis"].resampled(count + 2)
        axes.set_prop_cycle(color=graded(range(count)), linestyle=(STYLES[:3] * count)[:count])
        look = {"linewidth": 0.9}
    for label, curve in curves.items():  # matplotlib leaves labels that start with an underscore out of legends
        axes.plot(curve, label=label.lstrip("_") if curve.count() else None, markevery=max(1, len(curve) // 12), **look)
    if many and count <= 40:
        axes.figure.legend(loc="outside right upper", ncols=1 if count <= 16 else 2, fontsize=7.5)
    elif not many and legend and count > 1:
        axes.figure.legend(loc=ABOVE, ncols=min(count, 5, max(1, 76 // (5 + max(map(len, curves))))))


def curve_figure(
    curves: Mapping[str, pd.Series], y: str, x: str = EDITS, *, share: bool = False, markers: bool = True
) -> Figure | None:
    """Curves on axes of their own, labelled; y from 0 up, for a share to 1. None where there is no number."""
    if not any(curve.count() for curve in curves.values()):
        return None
    figure, axes = canvas()
    lines(axes, curves, markers=markers)
    label_axes(axes, y, x, share=share)
    return figure


def label_axes(axes: Axes, y: str, x: str = EDITS, *, share: bool = False) -> None:
    """Name the axes: whole numbers with commas on x; y from 0 up, for a share to 1."""
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    if share:
        axes.set(ylim=(-0.03, 1.03), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def heat_map(table: pd.DataFrame, x: str, y: str, bar: str = "", high: float | None = None) -> tuple[Figure, Axes]:
    """A heat map with the numbers in its cells where there is room; `high`: colours are for 0 to it, not as found.

    Cells without a number are grey.
    """
    figure, axes = canvas(9.0 if len(table.columns) > 8 else 5.6, min(5.5, 1.3 + 0.5 * max(3, len(table))))
    axes.set(xlabel=x, ylabel=y, facecolor="#eeeeee")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    image = axes.imshow(table, cmap="cividis", vmin=high and 0, vmax=high, aspect="auto", interpolation="nearest")
    figure.colorbar(image, ax=axes, label=bar, pad=0.02)
    for axis, names in ((axes.xaxis, table.columns), (axes.yaxis, table.index)):
        every = -(-len(names) // 12)
        axis.set_ticks(range(0, len(names), every), [str(name) for name in names[::every]])
        axis.set_tick_params(length=0)
    for (row, column), cell in np.ndenumerate(table.to_numpy()):
        if max(table.shape) <= 12 and not np.isnan(cell):
            colour = "white" if cell < sum(image.get_clim()) / 2 else "black"
            axes.text(column, row, f"{cell:.3f}", ha="center", va="center", color=colour, fontsize=8)
    return figure, axes
