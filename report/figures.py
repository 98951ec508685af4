"""The figures of one run's scores: while editing, per batch, on downstream tasks, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator

from report.load import Run, number
from report.numbers import SCORES, Curve, downstream_curves, downstream_lines, end_points, over_time, retention
from report.style import (
    COLOURS,
    MARKERS,
    SHARE,
    Plate,
    canvas,
    curve_figure,
    heat,
    legend_above,
    lines,
    plate,
    share_axes,
)


def score_figures(run: Run) -> Iterator[Plate | None]:
    """Scores, KL, immediate success, downstream, retention; None for what a run's records do not allow of."""
    yield scores(run)
    yield plate("divergence", curve_figure(over_time(run, "sample", ["LS_kl"]), "KL(before || after), nats"))
    found = over_time(run, "immediate", ["ES", "GS"], "step")
    yield plate("immediate", curve_figure(found, SHARE, "step", share=True))
    yield downstream(run)
    yield retained(run)


def scores(run: Run) -> Plate | None:
    """ES, GS, LS, KS and agreement against edits, with the whole run's end points."""
    sampled, ends = over_time(run, "sample", SCORES), end_points(run)
    names = list(dict.fromkeys([*sampled, *ends]))
    if not names:
        return None
    figure, axes = canvas()
    lines(axes, {name: sampled.get(name, Curve([], [])) for name in names}, legend=False)
    for name, end in ends.items():
        points = [(x, y) for x, y in zip(*end, strict=True) if y is not None]
        index, dotted = names.index(name), name not in sampled
        axes.plot(
            *zip(*points, strict=True),
            color=COLOURS[index],
            marker=MARKERS[index],
            markersize=7,
            markerfacecolor="none",
            linestyle=":" if dotted else "none",
            linewidth=1,
            label=name if dotted else None,
        )
    legend_above(axes, min(5, len(names)))
    share_axes(axes)
    words = []
    if sampled:
        words.append("Curves: a fixed sample; ES and GS over those of its edits that had been written by then.")
    if ends:
        words.append("Large hollow marks: all edits of the run, before the first and after the last.")
    if ends and not sampled:
        words.append("Nothing was measured between (eval.every=0), so the dotted lines are no measurement.")
    return plate("scores", figure, " ".join(words))


def downstream(run: Run) -> Plate | None:
    """Downstream scores against edits, a line per task and the average."""
    name, curves = downstream_curves(run)
    words = f"Figure {name} of each task" + (" (the likeliest choice)." if name.endswith("_new") else ".")
    perplexity = [number(line.get("perplexity/perplexity")) for line in downstream_lines(run)]
    found = [value for value in perplexity if value is not None]
    if found:
        words += f" Perplexity of the text: {found[0]:.4g} at first, {found[-1]:.4g} at last."
    return plate("downstream", curve_figure(curves, name, share=True), words)


def retained(run: Run) -> Plate | None:
    """The retention matrix: ES of each batch's edits, measured again after later steps."""
    table = retention(run)
    if table.empty:
        return None
    wide = len(table.columns) > 8
    figure, axes = canvas(9.0 if wide else 5.6, min(4.6, max(2.8, 1.6 + 0.34 * len(table))))
    image = heat(axes, table, (0.0, 1.0), 2)
    axes.set(xlabel="batch (the step that wrote it)", ylabel="measured after step")
    figure.colorbar(image, ax=axes, label="ES", pad=0.02)
    return plate("retention", figure, wide=wide)
