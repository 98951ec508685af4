"""The figures of one run: its scores while editing and what is kept, then how it went: shifts, training, time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from report import style
from report.load import POINTS, Run, curves, thin
from report.style import WORDS, Plate, plate
from report.tuning import tuning

SCORES = ("ES", "GS", "LS", "KS", "LS_agreement")
PERPLEXITY = "perplexity/perplexity"


def run_figures(run: Run) -> Iterator[Plate | None]:
    """Every figure of a run; None for what its records do not allow of."""
    yield tuning(run)
    yield scores(run)
    drift = run.over_time("sample", ["LS_kl"])
    yield plate("divergence", style.curve_figure(drift, "KL(before || after), nats"))
    immediate = run.over_time("immediate", ["ES", "GS"], "step")
    yield plate("immediate", style.curve_figure(immediate, style.SHARE, "step", share=True))
    told = [line[PERPLEXITY] for line in run.events["downstream"] if line.get(PERPLEXITY) is not None]
    words = f" Perplexity of the text: {told[0]:.4g} at first, {told[-1]:.4g} at last." if told else ""
    yield plate("downstream", style.curve_figure(run.downstream(), "f1_new", share=True), words)
    text = curves(run.events["downstream"], [PERPLEXITY], "edits")
    yield plate("perplexity", style.curve_figure({"text": text[PERPLEXITY]} if text else {}, "perplexity"))
    yield retention(run)
    yield ages(run)
    yield per_site(run, "shift_norm", "norm of the shift")
    yield per_site(run, "cosine", "cosine to the shift before")
    trained, labels = run.events["train"], {"gen_loss": "on rephrased prompts", "loc_loss": "KL on unrelated prompts"}
    losses = {labels[key]: curve for key, curve in curves(trained, labels).items()}
    figure = style.curve_figure(losses, "loss", "training step", markers=len(trained) <= 40)
    yield plate("training", figure, _thinned(len(trained)))
    yield spectrum(run)
    yield seconds(run)


def scores(run: Run) -> Plate | None:
    """ES, GS, LS, KS and agreement against edits, with the whole run's end points."""
    sampled, ends = run.over_time("sample", SCORES), curves(run.events["evaluate"], SCORES, "edits")
    names = list(dict.fromkeys([*sampled, *ends]))
    if not names:
        return None
    figure, axes = style.canvas()
    style.lines(axes, {name: sampled.get(name, pd.Series(dtype=float)) for name in names}, legend=False)
    for name, end in ends.items():
        place = names.index(name)
        look: dict[str, Any] = {"linestyle": "none"} if name in sampled else {"linestyle": ":", "label": name}
        look |= {"color": style.COLOURS[place], "marker": style.MARKERS[place], "markersize": 7, "linewidth": 1}
        axes.plot(end.dropna(), markerfacecolor="none", **look)
    figure.legend(loc=style.ABOVE, ncols=min(5, len(names)))
    style.label_axes(axes, style.SHARE, share=True)
    here = {"sampled": bool(sampled), "ends": bool(ends), "between": not sampled}
    return plate("scores", figure, " ".join(WORDS["scores"][key] for key, said in here.items() if said))


def retention(run: Run) -> Plate | None:
    """The retention matrix: ES of each batch's edits, measured again after later steps."""
    rows = {line["step"]: line["retention"] for line in run.events["over_time"] if line.get("retention")}
    if not rows:
        return None
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=float).rename(columns=int).sort_index(axis="columns")
    table = table.iloc[thin(len(table), 120), thin(len(table.columns), 120)]
    figure, _ = style.heat_map(table, "batch (the step that wrote it)", "measured after step", "ES", 1.0)
    return plate("retention", figure, wide=len(table.columns) > 8)


def ages(run: Run) -> Plate | None:
    """ES and ES_all at the end by how long ago an edit was written."""
    rows = run.results.get("retention_by_age") or []
    if len(rows) < 2:
        return None
    table = pd.DataFrame(rows)[["ES", "ES_all"]].astype(float)
    figure, axes = style.canvas()
    style.lines(axes, {str(name): curve for name, curve in table.items()})
    style.label_axes(axes, "share", "edits written since", share=True)
    axes.set_xticks(range(len(rows)), [f"{row['from']:,} to {row['to']:,}\n{row['n']:,} scored" for row in rows])
    return plate("ages", figure)


def site_labels(names: list[str]) -> tuple[str, dict[str, str]]:
    """Words on what the sites' names share, with * where they differ; and each name's own part."""
    parts = pd.DataFrame([name.split(".") for name in names], index=names)
    if len(names) < 2 or parts.isna().any(axis=None):
        return "", {name: name for name in names}
    differ = parts.nunique() > 1
    shared = ".".join(parts.iloc[0].mask(differ, "*"))
    own = parts.loc[:, differ].agg(".".join, axis="columns")
    return f" Sites: {shared}; the legend says what stands for *.", dict(zip(names, own, strict=True))


def per_site(run: Run, name: str, label: str) -> Plate | None:
    """One of shift_norm, cosine per site over steps; the warm-up is shaded."""
    steps = run.events["step"]
    shared, own = site_labels(list(dict.fromkeys(site for step in steps for site in step["sites"])))
    table = [{own[site]: shift[name] for site, shift in step["sites"].items()} for step in steps]
    warm = [place for place, step in enumerate(steps, start=1) if step["phase"] == "warm-up"]
    x = "step (warm-up included)" if warm else "step"
    figure = style.curve_figure(curves(table, own.values()), label, x, markers=len(steps) <= 40)
    if figure and warm:
        figure.axes[0].axvspan(warm[0] - 0.5, warm[-1] + 0.5, color="#f0ece2", zorder=0, linewidth=0)
    if figure and name == "cosine":
        (axes,) = figure.axes
        reach = min(1.05, max(0.1, 1.3 * max(map(abs, axes.dataLim.intervaly))))
        axes.set_ylim(-reach, reach)
        axes.axhline(0, color=style.FAINT, linewidth=1, zorder=1)
    return plate(name, figure, " Shaded: warm-up." * bool(warm) + _thinned(len(steps)) + shared)


def _thinned(count: int) -> str:
    return f" {POINTS} of {count} steps are drawn." if count > POINTS else ""


def spectrum(run: Run) -> Plate | None:
    """Eigenvalues of the value covariance by weight shape on logarithmic axes, with the floor."""
    found = {shape: entry for shape, entry in run.results.get("spectrum", {}).items() if entry["eigenvalues"][0] > 0}
    if not found:
        return None
    (figure, axes), words = style.canvas(), ""
    for index, (shape, entry) in enumerate(found.items()):
        values, floor = pd.Series(entry["eigenvalues"], index=entry["ranks"]), entry["floor"]
        colour = style.COLOURS[index % len(style.COLOURS)]
        axes.plot(values[values > 0], color=colour, label=f"weights {shape}", markevery=0.12, markersize=4)
        if floor > 0:
            axes.axhline(floor, color=colour, linewidth=1.4, linestyle=(0, (2, 2)), label=f"floor {floor:.3g}")
        words += f" {shape} after {entry['rows']:,} rows: {entry['below']} of {entry['size']} eigenvalues lie below"
        words += f" the floor of {floor:.3g}."
    # ticks in plain digits: names are not read as formulas here
    axes.set(xscale="log", yscale="log", xlabel="rank, largest first", ylabel="eigenvalue")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    figure.legend(loc=style.ABOVE, ncols=2)
    return plate("spectrum", figure, words)


def seconds(run: Run) -> Plate | None:
    """Wall-clock seconds per phase as horizontal bars."""
    phases = pd.Series(run.results.get("seconds", {}), dtype=float).sort_values(kind="stable")
    if not (total := phases.sum()):
        return None
    figure, axes = style.canvas(5.6, 1.1 + 0.24 * len(phases))
    bars = axes.barh(phases.index, phases, color=style.COLOURS[0], height=0.65)
    axes.bar_label(bars, [f"{_duration(v)}, {v / total:.0%}" for v in phases], padding=4, fontsize=8.5)
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
