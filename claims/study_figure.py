"""The study in one figure: what each editor reaches at what agreement, on every data set."""

from __future__ import annotations

from itertools import product

import matplotlib
from matplotlib.figure import Figure

from claims.study_page import COMPARED, Plan, Point, Points
from report.style import COLOURS, LOOKS, MARKERS


def frontiers(plan: Plan, found: Points) -> Figure:
    """A row of panels for ES_all and one for GS_all, a column for each data set; a line joins an editor's points."""
    names, editors = [name for name in plan["data"] if name in found], list(plan["editors"])
    others = [editor for editor in editors if editor != plan["ours"]]
    looks = {
        editor: (colour, marker)
        for editor, (marker, colour) in zip(others, product(MARKERS, COLOURS[:6]), strict=False)
    }
    looks[plan["ours"]] = ("black", "*")
    with matplotlib.rc_context(LOOKS):
        figure = Figure(figsize=(3.1 * max(2, len(names)), 6.2), layout="constrained")
        grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
        for row, metric in enumerate(COMPARED):
            for column, name in enumerate(names):
                axes = grid[row][column]
                for editor in (editor for editor in editors if editor in found[name]):
                    colour, marker = looks[editor]
                    ends = path(found[name][editor], metric)
                    width = 2.0 if editor == plan["ours"] else 1.0
                    axes.plot(*zip(*ends, strict=True), color=colour, marker=marker, ls="-", lw=width, label=editor)
                axes.set(xlim=(0, 1.03), ylim=(0, None), title="" if row else plan["data"][name]["label"])
                axes.set(xlabel="LS_agreement" if row else "", ylabel="" if column else metric)
        drawn = {
            label: line for axes in grid.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(drawn.values(), drawn.keys(), loc="outside upper center", ncols=6)
    return figure


def path(points: list[Point], metric: str) -> list[tuple[float, float]]:
    """Agreement and a metric at each point of a dial, from the unedited model on where there is a dial."""
    found = [(one.estimate("LS_agreement"), one.estimate(metric)) for one in points]
    ends = [(agreement.value, value.value) for agreement, value in found if agreement and value]
    first = points[0].estimate(metric, "before") if len(points) > 1 else None
    return [(1.0, first.value), *ends] if first else ends
