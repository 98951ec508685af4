"""A figure for each claim, as small SVG files in the look of the reports."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from report.numbers import Curve
from report.style import COLOURS, LOOKS, MARKERS, canvas, edits_axis, legend_above, lines, save

from .evidence import MAIN, Evidence
from .plan import PARTS, Setting, label
from .stats import Estimate

Labels = dict[str, str]


def draw(part: str, evidence: Evidence, settings: dict[str, Setting], folder: Path) -> Path | None:
    """Write FOLDER/PART.svg; None where no run of the part is there."""
    there = [name for name in PARTS[part] if evidence.runs(name)]
    if not there:
        return None
    labels = {name: label(part, settings[name]) if name in settings else name for name in there}
    with matplotlib.rc_context(LOOKS):
        figure = FIGURES[part](evidence, labels)
        _, svg = save(figure)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.svg"
    path.write_text(svg, encoding="utf-8")
    return path


def normalization(evidence: Evidence, labels: Labels) -> Figure:
    """ES and LS of the fixed sample against edits, a line per setting."""
    return _over_time(evidence, labels, "sample", ("ES", "LS"))


def cumulative(evidence: Evidence, labels: Labels) -> Figure:
    """ES and GS of a batch right after it was written against edits."""
    return _over_time(evidence, labels, "immediate", ("ES", "GS"))


def _over_time(evidence: Evidence, labels: Labels, group: str, metrics: Sequence[str]) -> Figure:
    figure, panels = _panels(len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        curves = {title: _mean_curve(evidence.over_time(name, group, metric)) for name, title in labels.items()}
        lines(axes, curves, legend=axes is panels[0])
        axes.set_ylim(bottom=0)
        edits_axis(axes)
        axes.set_ylabel(metric if group == "sample" else f"{metric} right after writing")
    return figure


def _mean_curve(curves: dict[int, tuple[list[float], list[float]]]) -> Curve:
    """The mean over seeds at each x that every seed has."""
    if not curves:
        return Curve([], [])
    tables = [dict(zip(xs, ys, strict=True)) for xs, ys in curves.values()]
    common = sorted(set.intersection(*(set(table) for table in tables)))
    return Curve(common, [sum(table[x] for table in tables) / len(tables) for x in common])


def shifts(evidence: Evidence, labels: Labels) -> Figure:
    """The shift's norm and its |cosine| to the last one against steps, first seed."""
    figure, panels = _panels(2)
    for index, (axes, title) in enumerate(
        zip(panels, ("norm of the shift", "|cosine| to the last shift"), strict=True)
    ):
        curves = {}
        for name, shown in labels.items():
            values = next(iter(evidence.shifts(name).values()))[index]
            curves[shown] = Curve(list(range(1, len(values) + 1)), list(values))
        lines(axes, curves, markers=False, legend=index == 0)
        edits_axis(axes, "step")
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
    return figure


def whitening(evidence: Evidence, labels: Labels) -> Figure:
    """ES, GS and LS against alpha; the diagonal's as crosses at its alpha."""
    figure, axes = canvas()
    alphas = {"stableedit": 10.0} | {n: float(n.removeprefix("alpha_")) for n in labels if n.startswith("alpha_")}
    order = sorted((name for name in alphas if name in labels), key=alphas.__getitem__)
    for index, metric in enumerate(MAIN):
        found = [(alphas[name], evidence.pooled(name, metric)) for name in order]
        _errors(axes, [(x, e) for x, e in found if e], index, metric, line=True)
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
        found = [(i + (index - 1) * 0.2, evidence.pooled(name, metric)) for i, name in enumerate(labels)]
        _errors(axes, [(x, e) for x, e in found if e], index, metric)
    axes.set_xticks(range(len(labels)), [wrapped(name) for name in labels.values()])
    axes.set_ylim(bottom=0)
    legend_above(axes)
    return figure


def wrapped(name: str) -> str:
    """A label on lines short enough to stand beside its neighbours."""
    return textwrap.fill(name, 14, break_long_words=False, break_on_hyphens=False)


def _errors(axes: Axes, points: list[tuple[float, Estimate]], index: int, metric: str, *, line: bool = False) -> None:
    below = [found.value - found.low for _, found in points]
    above = [found.high - found.value for _, found in points]
    axes.errorbar(
        [x for x, _ in points], [found.value for _, found in points], yerr=[below, above], label=metric,
        color=COLOURS[index], marker=MARKERS[index], markersize=5, linestyle="-" if line else "none", capsize=2,
    )  # fmt: skip


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(3.8 * count, 3.3))
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


FIGURES: dict[str, Callable[[Evidence, Labels], Figure]] = {
    "normalization": normalization, "cumulative": cumulative, "warmup": compared, "whitening": whitening,
    "shifts": shifts, "editors": compared, "beyond": compared,
    "precision": compared, "sites": compared, "questions": compared, "questions_step": compared,
}  # fmt: skip
