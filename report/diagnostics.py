"""The figures of how a run went: shifts, training, the value covariance, time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from report.load import Run, mapping, number
from report.numbers import POINTS, Curve, thin
from report.style import COLOURS, FAINT, MARKERS, STYLES, Plate, canvas, edits_axis, legend_above, lines, logarithmic


def diagnostic_figures(run: Run) -> Iterator[Plate]:
    """What a run's records allow of: shift norms, cosines, training losses, spectrum, seconds."""
    for draw in (shift_norms, cosines, training, spectrum, seconds):
        plate = draw(run)
        if plate is not None:
            yield plate


def site_labels(names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Words on what the sites' names share, with * where they differ; and each name's own part."""
    parts = {name: name.split(".") for name in names}
    if len({len(part) for part in parts.values()}) != 1 or len(parts) == 1:
        return "", {name: name for name in names}
    columns = list(zip(*parts.values(), strict=True))
    differ = [len(set(column)) > 1 for column in columns]
    shared = ".".join("*" if d else column[0] for d, column in zip(differ, columns, strict=True))
    own = {name: ".".join(p for p, d in zip(part, differ, strict=True) if d) for name, part in parts.items()}
    return f" Sites: {shared}; the legend says what stands for *.", own


def _site_curves(run: Run, which: int) -> tuple[str, dict[str, Curve]]:
    """One of (shift norm, cosine) per site over steps, thinned."""
    steps = list(enumerate(run.events["step"], start=1))
    names = dict.fromkeys(name for _, step in steps for name in step["sites"])
    shared, own = site_labels(list(names))
    kept = thin(steps)
    x = [index for index, _ in kept]
    curves = {own[n]: Curve(x, [step["sites"].get(n, (None, None))[which] for _, step in kept]) for n in names}
    return shared, {name: curve for name, curve in curves.items() if any(y is not None for y in curve.y)}


def _steps_axis(axes: Axes, run: Run) -> str:
    """Label the step axis and shade the warm-up; returns the words about both for the caption."""
    steps = run.events["step"]
    warm = [step["phase"] == "warm-up" for step in steps]
    edits_axis(axes, "step (warm-up included)" if any(warm) else "step")
    starts = [i for i, on in enumerate(warm) if on and not (i and warm[i - 1])]
    for start in starts:
        length = next((i for i, on in enumerate(warm[start:]) if not on), len(warm) - start)
        axes.axvspan(start + 0.5, start + length + 0.5, color="#f0ece2", zorder=0, linewidth=0)
    words = " Shaded: warm-up." if starts else ""
    return words + (f" {POINTS} of {len(steps)} steps are drawn." if len(steps) > POINTS else "")


def shift_norms(run: Run) -> Plate | None:
    """The Frobenius norm of each site's shift over steps."""
    shared, curves = _site_curves(run, 0)
    if not curves:
        return None
    figure, axes = canvas()
    lines(axes, curves, markers=len(run.events["step"]) <= 40)
    words = _steps_axis(axes, run) + shared
    axes.set_ylabel("norm of the shift")
    axes.set_ylim(bottom=0)
    caption = "Frobenius norm of the weight shift of each site. The paper's account of stability asks for bounded "
    caption += "norms: they should level off, not grow with the number of edits."
    return Plate("shift_norm", "Size of the shifts", caption + words, figure)


def cosines(run: Run) -> Plate | None:
    """The cosine between each site's shift and the one before over steps."""
    shared, curves = _site_curves(run, 1)
    if not curves:
        return None
    figure, axes = canvas()
    axes.axhline(0, color=FAINT, linewidth=1)
    lines(axes, curves, markers=len(run.events["step"]) <= 40)
    words = _steps_axis(axes, run) + shared
    axes.set_ylabel("cosine to the shift before")
    largest = max(abs(y) for curve in curves.values() for y in curve.y if y is not None)
    reach = min(1.05, max(0.1, 1.3 * largest))
    axes.set_ylim(-reach, reach)
    caption = "Cosine between successive shifts of a site. The paper's account asks for orthogonality: near 0, a new "
    caption += "shift neither undoes nor repeats the last one."
    return Plate("cosine", "Direction of successive shifts", caption + words, figure)


def training(run: Run) -> Plate | None:
    """Training losses of a learned editor."""
    found = list(enumerate(run.events["train"], start=1))
    labels = {"gen_loss": "on rephrased prompts", "loc_loss": "KL on unrelated prompts"}
    kept = thin(found)
    curves = {
        label: Curve([i for i, _ in kept], [number(line.get(key)) for _, line in kept]) for key, label in labels.items()
    }
    curves = {label: curve for label, curve in curves.items() if any(y is not None for y in curve.y)}
    if not curves:
        return None
    figure, axes = canvas()
    lines(axes, curves, markers=len(kept) <= 40)
    edits_axis(axes, "training step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    words = f" {POINTS} of {len(found)} steps are drawn." if len(found) > POINTS else ""
    caption = "Losses while the editor's networks were trained, before the first edit." + words
    return Plate("training", "Training of the editor", caption, figure)


class Spectrum(NamedTuple):
    """Eigenvalues by rank, largest first; the floor, how many of how many lie below it, rows seen."""

    ranks: list[int]
    values: list[float]
    floor: float | None
    below: int | None
    size: int
    rows: Any


def spectra(run: Run) -> dict[str, Spectrum]:
    """The recorded spectra by weight shape; a large one is recorded at evenly spaced ranks only."""
    found = {}
    for shape, entry in mapping(run.results.get("spectrum")).items():
        listed = mapping(entry).get("eigenvalues")
        values = listed if isinstance(listed, list) else []
        if not values or any(number(value) is None for value in values):
            continue
        ranks, floor, below = entry.get("ranks"), number(entry.get("floor")), number(entry.get("below"))
        if not isinstance(ranks, list) or len(ranks) != len(values):
            ranks = list(range(1, len(values) + 1))
        if below is None and floor is not None and ranks[-1] == len(values):
            below = sum(value < floor for value in values)
        found[shape] = Spectrum(ranks, values, floor, below, entry.get("size") or ranks[-1], entry.get("rows"))
    return found


def spectrum(run: Run) -> Plate | None:
    """Eigenvalues of the value covariance on logarithmic axes, with the floor."""
    found = {s: entry for s, entry in spectra(run).items() if entry.values[0] > 0}
    if not found:
        return None
    figure, axes = canvas()
    words = []
    for index, (shape, entry) in enumerate(found.items()):
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index % len(STYLES)]
        points = [(rank, value) for rank, value in zip(entry.ranks, entry.values, strict=True) if value > 0]
        marker = {"marker": MARKERS[index % len(MARKERS)], "markersize": 4, "markevery": 0.12}
        x, y = zip(*thin(points), strict=True)
        axes.plot(x, y, label=f"weights {shape}", color=colour, linestyle=style, **marker)
        seen = f" after {entry.rows:,} rows" if number(entry.rows) is not None else ""
        if entry.floor is not None and entry.floor > 0:
            label = f"floor {entry.floor:.3g}"
            axes.axhline(entry.floor, color=colour, linewidth=1.4, linestyle=(0, (2, 2)), label=label)
        if entry.below is not None:
            below = f"{entry.below} of {entry.size} eigenvalues lie below the floor of {entry.floor:.3g}"
            words.append(f"{shape}{seen}: {below}.")
    logarithmic(axes)
    axes.set_xlabel("rank, largest first")
    axes.set_ylabel("eigenvalue")
    legend_above(axes, 2)
    caption = "Covariance of the value gradients at the end of the run; eigenvalues below the floor are raised to it "
    caption += "before whitening, so those directions are scaled alike. "
    return Plate("spectrum", "Spectrum of the value covariance", caption + " ".join(words), figure)


def seconds(run: Run) -> Plate | None:
    """Wall-clock seconds per phase as horizontal bars."""
    phases = {k: v for k, v in mapping(run.results.get("seconds")).items() if number(v) is not None}
    total = sum(phases.values())
    if total <= 0:
        return None
    ordered = sorted(phases.items(), key=lambda item: item[1])
    figure, axes = canvas(5.6, 1.1 + 0.24 * len(ordered))
    bars = axes.barh([name for name, _ in ordered], [value for _, value in ordered], color=COLOURS[0], height=0.65)
    axes.bar_label(bars, [f"{_duration(v)}, {v / total:.0%}" for _, v in ordered], padding=4, fontsize=8.5)
    axes.set_xlabel("seconds")
    axes.margins(x=0.25)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return Plate("seconds", "Time per phase", f"Wall-clock time, {_duration(total)} in all.", figure)


def _duration(value: float) -> str:
    if value < 0.1:
        return "< 0.1 s"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
