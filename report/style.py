"""How figures look, and how one becomes a PNG and an SVG: colours for the colour-blind, and for grey paper too."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator

from report.numbers import Curve

# Okabe and Ito's palette without its yellow, which white paper swallows
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLES = ("-", (0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 2, 2)), (0, (4, 1)), "-.", "--")
INK, FAINT = "#222222", "#8a8a8a"
LOOKS = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.parse_math": False,  # names with a dollar sign are names
    "svg.fonttype": "path",  # the same on every machine, whatever fonts it has
    "svg.hashsalt": "report",
    "figure.constrained_layout.use": True,
}
METADATA = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


@dataclass
class Plate:
    """A drawn figure with its words; `wide` ones take the page's whole width."""

    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False


def canvas(width: float = 5.6, height: float = 3.5) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def save(figure: Figure) -> tuple[bytes, str]:
    """A figure as PNG and as SVG; laid out once, drawn once for each."""
    with matplotlib.rc_context(LOOKS):
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=160, metadata=METADATA["png"])
        figure.set_layout_engine("none")  # the places found for the first format serve the second
        figure.savefig(svg, format="svg", metadata=METADATA["svg"])
    text = re.sub(r"<\?xml.*?<svg", "<svg", svg.getvalue().decode(), count=1, flags=re.DOTALL)
    return png.getvalue(), text


def lines(axes: Axes, curves: dict[str, Curve], *, markers: bool = True, legend: bool = True) -> None:
    """Draw curves with a legend above; more than eight are thin, graded in colour, with the legend beside.

    A curve without a number takes its colour and mark but is not drawn.
    """
    if len(curves) > len(COLOURS):
        return _graded(axes, curves)
    for index, (label, curve) in enumerate(curves.items()):
        if all(value is None for value in curve.y):
            continue
        y = [float("nan") if value is None else value for value in curve.y]
        shown = {"marker": MARKERS[index], "markersize": 4.5} if markers else {}
        axes.plot(
            curve.x,
            y,
            label=_label(label),
            color=COLOURS[index],
            linestyle=STYLES[index],
            linewidth=1.6 if markers else 1.2,
            markevery=max(1, len(y) // 12),
            **shown,
        )
    if legend and len(curves) > 1:
        longest = max(map(len, curves))
        columns = min(len(curves), 5 if longest < 8 else 3 if longest < 22 else 2 if longest < 34 else 1)
        legend_above(axes, columns)
    return None


def _graded(axes: Axes, curves: dict[str, Curve]) -> None:
    colours = matplotlib.colormaps["viridis"].resampled(len(curves) + 2)
    for index, (label, curve) in enumerate(curves.items()):
        if all(value is None for value in curve.y):
            continue
        y = [float("nan") if value is None else value for value in curve.y]
        style = STYLES[index % 3]
        axes.plot(curve.x, y, label=_label(label), color=colours(index), linewidth=0.9, linestyle=style)
    if len(curves) <= 40:
        columns = 1 if len(curves) <= 16 else 2
        axes.figure.legend(loc="outside right upper", ncols=columns, fontsize=7.5)


def _label(text: str) -> str:
    """Matplotlib leaves labels that start with an underscore out of legends."""
    return f" {text}" if text.startswith("_") else text


def legend_above(axes: Axes, columns: int = 3) -> None:
    """The legend of what has been drawn, over the axes."""
    axes.figure.legend(loc="outside upper center", ncols=columns)


def share_axis(axes: Axes) -> None:
    """A y axis of shares from 0 to 1."""
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def edits_axis(axes: Axes, label: str = "edits written") -> None:
    """An x axis of whole numbers with commas."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def logarithmic(axes: Axes) -> None:
    """Both axes logarithmic, with ticks in plain digits: names are not read as formulas here."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda x, _: ""))


def heat(
    axes: Axes,
    table: Sequence[Sequence[float | None]],
    rows: Sequence[object],
    columns: Sequence[object],
    limits: tuple[float, float] | None = None,
    digits: int = 3,
) -> AxesImage:
    """A heat map with the numbers in its cells where there is room; cells without a number are hatched."""
    values = [[float("nan") if cell is None else cell for cell in row] for row in table]
    low, high = limits or (None, None)
    axes.grid(False)
    axes.set_facecolor("#eeeeee")
    axes.spines[:].set_visible(False)
    image = axes.imshow(values, cmap="cividis", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        every = -(-len(names) // 12)
        axis.set_ticks(range(0, len(names), every), [str(name) for name in names[::every]])
        axis.set_tick_params(length=0)
    if len(rows) <= 12 and len(columns) <= 12:
        size = 9 if len(columns) <= 6 else 7.5
        for y, row in enumerate(table):
            for x, cell in enumerate(row):
                if cell is not None:
                    red, green, blue, _ = image.cmap(image.norm(cell))
                    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                    colour = "white" if dark else "black"
                    axes.text(x, y, f"{cell:.{digits}f}", ha="center", va="center", color=colour, fontsize=size)
    return image
