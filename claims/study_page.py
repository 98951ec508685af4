"""What the study's runs left: frontiers, and each editor against the base's frontier at equal agreement."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from claims.evidence import Estimate, mean, pooled
from claims.templates import environment
from report.load import Run, load_run
from report.metrics import merit

SHOWN = ("ES", "ES_all", "GS", "GS_all", "LS_agreement")
COMPARED = ("ES_all", "GS_all")
Plan = Mapping[str, Any]


@dataclass
class Point:
    """One point of an editor's dial on one data set: its runs by seed."""

    editor: str
    value: str
    runs: dict[int, Run] = field(default_factory=dict)

    def estimate(self, metric: str, side: str = "value") -> Estimate | None:
        """A number over the seeds, with Wilson's interval; `before`: that of the unedited model."""
        rows = [row for run in self.runs.values() for row in run.rows if row["metric"] == metric]
        table = pd.DataFrame(rows, columns=[side, "n"], dtype=float).dropna()
        return pooled(table[side], table["n"])

    def shift_norm(self) -> float:
        """The mean over steps and sites, of the first seed."""
        sites = [
            site for line in self.runs[0].events["step"] if line["phase"] == "edit" for site in line["sites"].values()
        ]
        return float(pd.DataFrame(sites)["shift_norm"].astype(float).mean())

    def merit(self) -> float | None:
        """The mean of its runs' (report.metrics.merit)."""
        found = [value for run in self.runs.values() if (value := merit(run.scores, run.before)) is not None]
        return sum(found) / len(found) if found else None


Points = dict[str, dict[str, list[Point]]]
"""Data set -> editor -> points, in order of agreement."""


@dataclass(frozen=True)
class End:
    """A place on a frontier: agreement, and each edit's scores there."""

    agreement: float
    scores: pd.DataFrame


def load(out: Path) -> Points:
    """The finished runs below `out`."""
    found: dict[str, dict[str, dict[str, Point]]] = defaultdict(lambda: defaultdict(dict))
    for folder in sorted(out.glob("*/*/*/seed*")):
        name, editor, value = folder.parts[-4:-1]
        run = load_run(folder)
        if run.finished:
            point = found[name][editor].setdefault(value, Point(editor, value))
            point.runs[int(folder.name.removeprefix("seed"))] = run
    return {
        name: {editor: sorted(points.values(), key=_agreement, reverse=True) for editor, points in editors.items()}
        for name, editors in found.items()
    }


def _agreement(point: Point) -> float:
    estimate = point.estimate("LS_agreement")
    return estimate.value if estimate else 0.0


@cache
def scores(folder: Path, side: str) -> pd.DataFrame:
    """Each scored edit's ES_all and GS_all in a run's folder, `before` or `after`."""
    rows = {}
    with open(folder / "edits.jsonl", encoding="utf-8") as file:
        for line in map(json.loads, file):
            asked = line[side]
            whole = {f"{name}_all": _whole(asked[name]) for name in ("ES", "GS") if name in asked}
            rows[line["index"]] = whole
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def _whole(asked: Mapping[str, Any]) -> float:
    """The share of a kind's prompts with every answer token right."""
    each = asked.get("each") or [asked]
    return sum(float(one["all"]) for one in each) / len(each)


def frontier(points: Sequence[Point], seed: int) -> list[End]:
    """The unedited model and a seed's runs of one editor, from the highest agreement down."""
    runs = [point.runs[seed] for point in points if seed in point.runs]
    ends = [End(run.scores["LS_agreement"] or 0.0, scores(run.path, "after")) for run in runs]
    first = [End(1.0, scores(runs[0].path, "before"))] if runs else []
    return sorted([*first, *ends], key=lambda end: -end.agreement)


def at(ends: Sequence[End], agreement: float) -> pd.DataFrame | None:
    """Each edit's scores where a frontier, linear between its ends, has this agreement; None beyond its last."""
    for high, low in pairwise(ends):
        if low.agreement <= agreement <= high.agreement:
            share = (agreement - low.agreement) / max(high.agreement - low.agreement, 1e-12)
            return high.scores * share + low.scores * (1 - share)
    return None


def against(base: Sequence[Point], point: Point) -> dict[str, Estimate | None]:
    """A point minus the base's frontier at the point's agreement, by metric, paired by edit over the seeds."""
    gaps = []
    for seed, run in point.runs.items():
        there = at(frontier(base, seed), run.scores["LS_agreement"] or 0.0)
        if there is not None:
            gaps.append(scores(run.path, "after") - there)
    table = pd.concat(gaps) if gaps else pd.DataFrame(columns=list(COMPARED), dtype=float)
    return {metric: mean(table.reindex(columns=[metric])[metric].dropna()) for metric in COMPARED}


def default_point(plan: Plan, points: Sequence[Point]) -> Point | None:
    """The point at an editor's own default, or its only one."""
    for point in points:
        told = plan["editors"][point.editor].get("default")
        if told is not None and point.value == f"{float(told):g}":
            return point
    return points[0] if len(points) == 1 else None


def outcomes(plan: Plan, found: Points) -> Iterator[tuple[str, float, Point, dict[str, Estimate | None]]]:
    """Of each data set: the gain that is wanted, our editor's default point, and how it stands against the base."""
    for name, editors in ((name, found[name]) for name in plan["data"] if name in found):
        ours = default_point(plan, editors.get(plan["ours"], ()))
        if ours is not None and editors.get(plan["base"]):
            yield name, plan["wanted"][name], ours, against(editors[plan["base"]], ours)


def verdicts(plan: Plan, found: Points) -> str:
    """A line for each data set: what was wanted, what was found."""
    lines = []
    for name, wanted, ours, over in outcomes(plan, found):
        gain, rephrased = over["ES_all"], over["GS_all"]
        if gain is None or rephrased is None:
            lines.append(
                f"{plan['data'][name]['label']}: agreement {_agreement(ours):.3f} is below the base's frontier"
            )
            continue
        word = "holds" if gain.value >= wanted and gain.low > 0 else "does not hold"
        lines.append(
            f"{plan['data'][name]['label']}: at agreement {_agreement(ours):.3f} {plan['ours']} over {plan['base']}: "
            f"ES_all {gain.text(sign=True)}, wanted {wanted:+.2f}: {word}; GS_all {rephrased.text(sign=True)}"
        )
    return "\n".join(lines)


def without(plan: Plan, found: Points, part: str, value: str) -> dict[str, Point]:
    """By data set, the base without a part at a step size; without `words` it is the base itself."""
    folder = part if "words" in plan["parts"]["settings"][part] else plan["base"]
    pairs = [(name, point) for name in plan["parts"]["data"] for point in found.get(name, {}).get(folder, ())]
    return {
        name: replace(point, runs={0: point.runs[0]})
        for name, point in pairs
        if point.value == value and 0 in point.runs
    }


def page(plan: Plan, scale: str, found: Points) -> str:
    """docs/study.md."""
    data = {name: found[name] for name in plan["data"] if name in found}
    return environment().get_template("study.md.j2").render(
        plan=plan, told=plan["scales"][scale], data=data, against=against, shown=SHOWN, compared=COMPARED,
        verdicts=verdicts(plan, found), loads=loads(data), any_point=any_point, without=without,
        long=next(iter(found.get("long", {}).get(plan["ours"], ())), None),
    )  # fmt: skip


def any_point(editors: Mapping[str, Sequence[Point]]) -> Point:
    """A point whose runs say what the unedited model does."""
    return next(point for points in editors.values() for point in points)


def loads(data: Mapping[str, Mapping[str, Sequence[Point]]]) -> str:
    """Edits of a run and its load."""
    runs = [run for editors in data.values() for run in any_point(editors).runs.values()]
    if not runs:
        return ""
    edits = runs[0].results["counts"]["edits"]
    return f"{edits:,} edits"
