"""The figures of one run's scores: while editing, per batch, on downstream tasks, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator

from report.load import Run, mapping, number
from report.numbers import (
    Curve,
    downstream_curves,
    downstream_lines,
    end_points,
    retention,
    score_curves,
    thin,
)
from report.style import COLOURS, MARKERS, Plate, canvas, edits_axis, heat, legend_above, lines, share_axis


def score_figures(run: Run) -> Iterator[Plate]:
    """What a run's records allow of: scores, KL, immediate success, downstream, retention."""
    for draw in (scores, divergence, immediate, downstream, retained):
        plate = draw(run)
        if plate is not None:
            yield plate


def scores(run: Run) -> Plate | None:
    """ES, GS, LS, KS and agreement against edits, with the whole run's end points."""
    sampled, ends = score_curves(run), end_points(run)
    sampled.pop("LS_kl", None)
    names = list(dict.fromkeys([*sampled, *ends]))
    if not names:
        return None
    figure, axes = canvas()
    empty = Curve([], [])
    lines(axes, {name: _thinned(sampled.get(name, empty)) for name in names}, legend=False)
    for index, name in enumerate(names):
        end = ends.get(name, empty)
        points = [(x, y) for x, y in zip(end.x, end.y, strict=True) if y is not None]
        style = {"linestyle": ":" if name not in sampled else "none", "linewidth": 1}
        axes.plot(
            *([p[i] for p in points] for i in (0, 1)),
            marker=MARKERS[index],
            markersize=7,
            markerfacecolor="none",
            color=COLOURS[index],
            label=None if name in sampled else name,
            **style,
        )
    legend_above(axes, min(5, len(names)))
    edits_axis(axes)
    axes.set_ylabel("share of answer tokens")
    share_axis(axes)
    words = []
    if sampled:
        words.append("Curves: a fixed sample; ES and GS over those of its edits that had been written by then.")
    if ends:
        words.append("Large hollow marks: all edits of the run, before the first and after the last.")
    if ends and not sampled:
        words.append("Nothing was measured between (eval.every=0), so the dotted lines are no measurement.")
    return Plate("scores", "Scores against edits", " ".join(words), figure)


def _thinned(curve: Curve) -> Curve:
    kept = thin(list(zip(curve.x, curve.y, strict=True)))
    return Curve([x for x, _ in kept], [y for _, y in kept])


def divergence(run: Run) -> Plate | None:
    """KL on unrelated prompts against edits."""
    curve = score_curves(run).get("LS_kl")
    if curve is None:
        return None
    figure, axes = canvas()
    lines(axes, {"LS_kl": _thinned(curve)})
    edits_axis(axes)
    axes.set_ylabel("KL(before || after), nats")
    axes.set_ylim(bottom=0)
    caption = "How far the next-token distribution on unrelated prompts of the fixed sample has moved; 0 is no change."
    return Plate("divergence", "Drift on unrelated prompts", caption, figure)


def immediate(run: Run) -> Plate | None:
    """ES and GS of each batch right after its own write."""
    found = [(number(ln.get("step")), mapping(ln.get("immediate"))) for ln in run.events["over_time"]]
    found = thin([(step, scores) for step, scores in found if step and scores])
    names = [name for name in ("ES", "GS") if any(number(scores.get(name)) is not None for _, scores in found)]
    if not names:
        return None
    figure, axes = canvas()
    steps = [step for step, _ in found]
    lines(axes, {name: Curve(steps, [number(scores.get(name)) for _, scores in found]) for name in names})
    edits_axis(axes, "step")
    axes.set_ylabel("share of answer tokens")
    share_axis(axes)
    caption = "Each point is one batch, measured right after its own write: whether new edits still take."
    return Plate("immediate", "Immediate success per batch", caption, figure)


def downstream(run: Run) -> Plate | None:
    """Downstream scores against edits, a line per task and the average."""
    name, curves = downstream_curves(run)
    if not curves:
        return None
    figure, axes = canvas()
    lines(axes, {task: _thinned(curve) for task, curve in curves.items()})
    edits_axis(axes)
    axes.set_ylabel(name)
    share_axis(axes)
    words = f"Figure {name} of each task" + (" (the likeliest choice)." if name.endswith("_new") else ".")
    perplexity = [number(line.get("perplexity/perplexity")) for line in downstream_lines(run)]
    found = [value for value in perplexity if value is not None]
    if found:
        words += f" Perplexity of the text: {found[0]:.4g} at first, {found[-1]:.4g} at last."
    return Plate("downstream", "Downstream scores against edits", words, figure)


def retained(run: Run) -> Plate | None:
    """The retention matrix: ES of each batch's edits, measured again after later steps."""
    steps, batches, table = retention(run)
    if not batches:
        return None
    wide = len(batches) > 8
    height = min(4.6, 1.6 + 0.34 * len(steps))
    figure, axes = canvas(9.0 if wide else 5.6, max(2.8, height))
    image = heat(axes, table, steps, batches, (0.0, 1.0), 2)
    axes.set_xlabel("batch (the step that wrote it)")
    axes.set_ylabel("measured after step")
    figure.colorbar(image, ax=axes, label="ES", pad=0.02)
    caption = "ES of the sampled edits of each batch, measured again after later steps. Down a column: how well "
    caption += "that batch is kept; the diagonal: right after its write. Grey: not written yet, or none in the sample."
    return Plate("retention", "Retention of earlier batches", caption, figure, wide=wide)
