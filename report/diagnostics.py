"""The figures of how a run went: shifts, training, the value covariance, time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from report.load import Run, mapping, number
from report.numbers import POINTS, Curve, curves, thin
from report.style import COLOURS, FAINT, MARKERS, STYLES, Plate, canvas, curve_figure, legend_above, logarithmic, plate


def diagnostic_figures(run: Run) -> Iterator[Plate | None]:
    """Shift norms, cosines, training losses, spectrum, seconds; None for what a run's records do not allow of."""
    yield per_site(run, 0, "shift_norm", "norm of the shift")
    cosine = per_site(run, 1, "cosine", "cosine to the shift before")
    if cosine is not None:
        (axes,) = cosine.figure.axes
        reach = min(1.05, max(0.1, 1.3 * max(map(abs, axes.dataLim.intervaly))))
        axes.set_ylim(-reach, reach)
        axes.axhline(0, color=FAINT, linewidth=1, zorder=1)
    yield cosine
    yield training(run)
    yield spectrum(run)
    yield seconds(run)


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


def per_site(run: Run, which: int, name: str, label: str) -> Plate | None:
    """One of (shift norm, cosine) per site over steps; the warm-up is shaded."""
    steps = run.events["step"]
    shared, own = site_labels(list(dict.fromkeys(site for step in steps for site in step["sites"])))
    found = curves([{own[site]: pair[which] for site, pair in step["sites"].items()} for step in steps], own.values())
    phases = [step["phase"] == "warm-up" for step in steps]
    x = "step (warm-up included)" if any(phases) else "step"
    figure = curve_figure(found, label, x, markers=len(steps) <= 40)
    for warm, group in groupby(enumerate(phases, start=1), key=lambda pair: pair[1]):
        if figure is not None and warm:
            places = [place for place, _ in group]
            figure.axes[0].axvspan(places[0] - 0.5, places[-1] + 0.5, color="#f0ece2", zorder=0, linewidth=0)
    return plate(name, figure, (" Shaded: warm-up." if any(phases) else "") + _thinned(len(steps)) + shared)


def _thinned(count: int) -> str:
    return f" {POINTS} of {count} steps are drawn." if count > POINTS else ""


def training(run: Run) -> Plate | None:
    """Training losses of a learned editor."""
    lines, labels = run.events["train"], {"gen_loss": "on rephrased prompts", "loc_loss": "KL on unrelated prompts"}
    found = {labels[key]: curve for key, curve in curves(lines, labels).items()}
    figure = curve_figure(found, "loss", "training step", markers=len(lines) <= 40)
    return plate("training", figure, _thinned(len(lines)))


def spectra(run: Run) -> dict[str, Curve]:
    """The recorded spectra by weight shape: eigenvalues by rank, largest first; zeros are left out."""
    found = {}
    for shape, entry in mapping(run.results.get("spectrum")).items():
        values = [number(value) for value in entry.get("eigenvalues") or []]
        ranks = entry.get("ranks") or range(1, len(values) + 1)
        kept = [(rank, value) for rank, value in zip(ranks, values, strict=True) if value is not None and value > 0]
        if kept:
            found[shape] = Curve(*zip(*thin(kept), strict=True))
    return found


def spectrum(run: Run) -> Plate | None:
    """Eigenvalues of the value covariance on logarithmic axes, with the floor."""
    found, words = spectra(run), []
    if not found:
        return None
    figure, axes = canvas()
    for index, (shape, (ranks, values)) in enumerate(found.items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        axes.plot(
            ranks,
            values,
            color=colour,
            linestyle=STYLES[index % len(STYLES)],
            marker=marker,
            markersize=4,
            markevery=0.12,
            label=f"weights {shape}",
        )
        entry = run.results["spectrum"][shape]
        floor, rows, below = (number(entry.get(name)) for name in ("floor", "rows", "below"))
        if floor:
            axes.axhline(floor, color=colour, linewidth=1.4, linestyle=(0, (2, 2)), label=f"floor {floor:.3g}")
        if below is not None:
            seen = "" if rows is None else f" after {rows:,} rows"
            words.append(f" {shape}{seen}: {below} of {entry['size']} eigenvalues lie below the floor of {floor:.3g}.")
    logarithmic(axes)
    axes.set(xlabel="rank, largest first", ylabel="eigenvalue")
    legend_above(axes, 2)
    return plate("spectrum", figure, "".join(words))


def seconds(run: Run) -> Plate | None:
    """Wall-clock seconds per phase as horizontal bars."""
    phases = {k: v for k, v in mapping(run.results.get("seconds")).items() if number(v) is not None}
    total = sum(phases.values())
    if total <= 0:
        return None
    ordered = dict(sorted(phases.items(), key=lambda item: item[1]))
    figure, axes = canvas(5.6, 1.1 + 0.24 * len(ordered))
    bars = axes.barh(list(ordered), list(ordered.values()), color=COLOURS[0], height=0.65)
    axes.bar_label(bars, [f"{_duration(v)}, {v / total:.0%}" for v in ordered.values()], padding=4, fontsize=8.5)
    axes.set_xlabel("seconds")
    axes.margins(x=0.25)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return plate("seconds", figure, f" {_duration(total)} in all.")


def _duration(value: float) -> str:
    if value < 0.1:
        return "< 0.1 s"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
