"""The curve of a search of the step size (tune=true)."""

from __future__ import annotations

import pandas as pd

from report import style
from report.load import Run
from report.metrics import RULES
from report.style import Plate, plate

CURVES = ("objective", "ES_all", "GS_all", "LS_agreement")


def tuning(run: Run) -> Plate | None:
    """Objective and scores of the trials at the sites that did best against the step size; None without a search."""
    found = run.results.get("tune") or {}
    trials = [trial for trial in found.get("trials", []) if trial["scores"]]
    if not trials:
        return None
    best = found["trials"][found["best"]]
    rows = [{**trial["scores"], **trial} for trial in trials if trial["sites"] == best["sites"]]
    table = pd.DataFrame(rows).set_index("lr").sort_index()
    table = table.reindex(columns=[name for name in CURVES if name in table]).astype(float)
    figure, axes = style.canvas()
    style.lines(axes, {str(name): curve for name, curve in table.items()})
    axes.axvline(best["lr"], color=style.FAINT, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    axes.axhline(0, color=style.FAINT, linewidth=1, zorder=1)
    low = min(-0.03, 1.1 * float(table.min().min()))
    axes.set(xscale="log", xlabel="step size editor.lr", ylabel="share of edits, objective", ylim=(low, 1.03))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    by = (run.config.get("eval") or {}).get("best", "gain")
    words = f" {RULES[by].words}; {best['lr']:.1e} at {', '.join(best['sites'])}."
    return plate("tuning", figure, words)
