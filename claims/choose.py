"""Which point of a sweep the long run takes: the best mean of ES, GS and LS on held-out edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from report.load import Run, load_run
from report.metrics import merit
from report.numbers import before_scores, final

from .plan import Job, Setting

FORMULA = "((ES - ES0) + (GS - GS0) + (LS - LS0)) / 3, where 0 marks the unedited model's score on the same edits"


@dataclass(frozen=True)
class Choice:
    """A sweep's outcome: the chosen point, each point's score, and whether the best is its first or last point."""

    point: str
    scores: dict[str, float | None]
    edge: bool


def score(run: Run) -> float | None:
    """The number that a sweep maximizes (FORMULA); None for a run that did not end well."""
    return (
        merit({metric: final(run, metric) for metric in ("ES", "GS", "LS")}, before_scores(run))
        if run.finished
        else None
    )


def choose(setting: Setting, jobs: Sequence[Job], out: Path) -> Choice | None:
    """The best point of a sweep, the first of equals; None while a point is missing or where none ended well."""
    runs = [load_run(out / job.path) for job in jobs]
    if any(run.state in ("no record", "running", "interrupted") for run in runs):
        return None
    scores = [score(run) for run in runs]
    best = max((found for found in scores if found is not None), default=None)
    if best is None:
        return None
    at = scores.index(best)
    names = [job.name for job in jobs]
    return Choice(setting.points()[at], dict(zip(names, scores, strict=True)), at in (0, len(jobs) - 1))
