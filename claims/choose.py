"""Which point of a sweep the long run takes: the best mean of ES, GS and LS on held-out edits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report.load import Run, load_run
from report.numbers import before_scores, final

from .plan import Job, Setting

CHOSEN_BY = ("ES", "GS", "LS")
FORMULA = "((ES - ES0) + (GS - GS0) + (LS - LS0)) / 3, where 0 marks the unedited model's score on the same edits"


@dataclass(frozen=True)
class Choice:
    """A sweep's outcome: the chosen overrides, each point's score, and whether the best lies at an edge of its grid."""

    words: tuple[str, ...]
    scores: dict[str, float]
    edge: bool


def merit(run: Run) -> float:
    """The number that a sweep maximizes (FORMULA); minus infinity for a run that did not end well."""
    if not run.finished:
        return -math.inf
    before = before_scores(run)
    gains = [(final(run, metric), before.get(metric)) for metric in CHOSEN_BY]
    if any(after is None or start is None for after, start in gains):
        return -math.inf
    return sum(after - start for after, start in gains) / len(gains)  # type: ignore[operator]


def choose(setting: Setting, jobs: Sequence[Job], out: Path) -> Choice | None:
    """The best point of a sweep, the first of equals; None while a point is missing or where none ended well."""
    runs = [load_run(out / job.path) for job in jobs]
    if not runs or any(run.state in ("no record", "running", "interrupted") for run in runs):
        return None
    scores = [merit(run) for run in runs]
    best = max(range(len(jobs)), key=scores.__getitem__)
    if scores[best] == -math.inf:
        return None
    point = setting.points()[best]
    return Choice(point, {job.name: score for job, score in zip(jobs, scores, strict=True)}, at_edge(setting, point))


def at_edge(setting: Setting, point: Sequence[str]) -> bool:
    """Whether a grid of three values or more might have had its best outside: the point has its first or last value."""
    for (key, values), word in zip(setting.grid.items(), point, strict=True):
        if len(values) > 2 and word in (f"{key}={values[0]:g}", f"{key}={values[-1]:g}"):
            return True
    return all(len(values) <= 2 for values in setting.grid.values())
