"""The results page, its figures and its headline in README.md: written wholly from what the runs left, by *.j2."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure

from config.check import ConfigError
from files import read_json, write_whole
from report.style import ABOVE, COLOURS, EDITS, LOOKS, MARKERS, canvas, label_axes, lines, save

from .evidence import MAIN, Evidence, minutes
from .plan import PARTS, label, settings
from .runner import Runner
from .templates import marks, put_between
from .verdicts import JUDGED, gains, judge

ALPHA = 10  # of stableedit and of diagonal
BEGIN, END = marks("claims", "python -m claims")
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, keep_trailing_newline=True)
TEMPLATES.filters["minutes"] = minutes
TEMPLATES.globals |= {"parts": PARTS, "main": [*MAIN], "judged": JUDGED, "label": label, "gains": gains}


def curves(part: str, evidence: Evidence, labels: dict[str, str]) -> Figure:
    """A line for each setting: the mean over seeds at each place that every seed has; of shifts the first seed."""
    group, panels = PARTS[part].measured, PARTS[part].panels
    figure = Figure(figsize=(3.8 * len(panels), 3.3))
    for axes, (column, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        drawn = {}
        for name, shown in labels.items():
            by_seed = evidence.curves(name, group, column).pivot(index="at", columns="seed", values=column)
            drawn[shown] = by_seed.iloc[:, 0] if group == "step" else by_seed.dropna().mean(axis=1)
        lines(axes, drawn, markers=group != "step", legend=column == next(iter(panels)))
        label_axes(axes, title, "step" if group == "step" else EDITS)
    return figure


def compared(part: str, evidence: Evidence, labels: dict[str, str]) -> Figure:
    """ES, GS and LS of each setting with their intervals; of whitening against alpha, the diagonal's as crosses."""
    by_alpha = part == "whitening"
    figure, axes = canvas() if by_alpha else canvas(max(7.2, 1.25 * len(labels)), 3.4)
    places = {name: float(name.removeprefix("alpha_")) for name in labels if name.startswith("alpha_")}
    places = places | {"stableedit": ALPHA} if by_alpha else {name: place for place, name in enumerate(labels)}
    for index, (metric, colour) in enumerate(zip(MAIN, COLOURS, strict=False)):
        look = {"label": metric, "color": colour, "marker": MARKERS[index], "ls": "-" if by_alpha else "none"}
        found = [(place, e) for name, place in places.items() if (e := evidence.pooled(name, metric))]
        table = pd.DataFrame([(x, e.value, e.value - e.low, e.high - e.value) for x, e in found], columns=[*"xyab"])
        table = table.sort_values("x").assign(x=table["x"] + (0 if by_alpha else (index - 1) * 0.2))
        axes.errorbar(table["x"], table["y"], table[["a", "b"]].T, markersize=5, capsize=2, **look)
        if by_alpha and (diagonal := evidence.pooled("diagonal", metric)):
            axes.plot([ALPHA * 1.25], [diagonal.value], "x", color=colour, markersize=7)
    if by_alpha:
        axes.set_xscale("log")
        axes.set_xticks(sorted(places.values()), [f"{alpha:g}" for alpha in sorted(places.values())])
        axes.set_xlabel(f"alpha (crosses: per-coordinate normalization, alpha {ALPHA})")
    else:  # lines short enough to stand beside their neighbours
        names = [textwrap.fill(name, 14, break_long_words=False, break_on_hyphens=False) for name in labels.values()]
        axes.set_xticks(range(len(labels)), names)
    axes.set_ylim(bottom=0)
    figure.legend(loc=ABOVE, ncols=3)
    return figure


class Page:
    """What is said of the runs in a runner's folder; ConfigError where it has none, or those of another scale."""

    def __init__(self, runner: Runner) -> None:
        path = runner.out / "claims.json"
        if not path.is_file():
            raise ConfigError(f"--out {runner.out}: nothing was run there; run without --report-only first")
        if (made := read_json(path))["scale"] != runner.scale.name:
            raise ConfigError(f"--out {runner.out}: holds a {made['scale']} run, not a {runner.scale.name} one")
        self.settings, self.evidence = settings(runner.scale), Evidence(runner.out)
        found = {name: self.evidence.runs[name] for name in self.settings if self.evidence.runs[name]}
        self.content: dict[str, Any] = {
            **{"made": made, "scale": runner.scale, "choice": runner.choice, "settings": self.settings},
            **{"evidence": self.evidence, "runs": found},
            "verdicts": {part: judge(part, self.evidence) for part in PARTS},
            "total": sum(minutes(path.parent) for path in runner.out.glob("*/*/*/status.json")),
            "command_of": lambda name: command(next(iter(found[name].values())).overrides, runner.out),
        }

    def write(self, path: Path) -> Path:
        """Write the page and, in figures/ beside it, the figures; returns its path."""
        for name, part in PARTS.items():
            labels = {one: label(name, self.settings[one]) for one in part.settings if self.evidence.runs[one]}
            if labels:
                with matplotlib.rc_context(dict[Any, Any](LOOKS)):
                    figure = (curves if part.panels else compared)(name, self.evidence, labels)
                    write_whole(path.parent / "figures" / f"{name}.svg", save(figure)[1])
        write_whole(path, TEMPLATES.get_template("RESULTS.md.j2").render(self.content))
        return path

    def update(self, readme: Path, page: Path) -> None:
        """Put outcomes, the figure and the table of the editors between README.md's markers; ConfigError without."""
        path = page.relative_to(readme.parent)
        block = TEMPLATES.get_template("README.md.j2").render(self.content, page=path.as_posix(), folder=path.parent)
        put_between(readme, BEGIN, END, block)


def command(overrides: list[str], out: Path) -> str:
    """How a run was made, its output folder named OUT."""
    words = [word.replace(str(out), "OUT") for word in overrides if not word.startswith("resume=")]
    return shlex.join(["python", "main.py", *words])
