"""The published figures of a task from labels and predictions, plus accuracies and their standard errors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

from sklearn.metrics import f1_score, matthews_corrcoef

from glue_eval.tasks import INVALID

AVERAGED = ("f1", "f1_new", "mcc", "accuracy", "accuracy_new")


def figures(
    labels: Sequence[int], answers: Sequence[int], choices: Sequence[int], glue_flipped: bool = False
) -> dict[str, float | None]:
    """The figures over a task's examples; without any example the counts are 0 and the rest is None.

    `answers` are read from the generated text (INVALID where no rule matched; an invalid answer counts in
    the total only), `choices` from the likelihoods: names that end in _new are theirs. `glue_flipped` adds
    the F1 in GLUE's own labels, which are one less the published scorer's.
    """
    invalid = sum(answer == INVALID for answer in answers)
    found = _told(labels, answers, "") | {"invalid": invalid, "mcc": _mcc(labels, answers)}
    found |= {"incorrect": sum(a not in (y, INVALID) for a, y in zip(answers, labels, strict=True))}
    if glue_flipped:
        flipped = [[p if p == INVALID else 1 - p for p in predictions] for predictions in (answers, choices)]
        found |= {"f1_glue": _f1(labels, flipped[0]), "f1_new_glue": _f1(labels, flipped[1])}
    return found | choice_figures(labels, choices)


def choice_figures(labels: Sequence[int], choices: Sequence[int]) -> dict[str, float | None]:
    """The figures of the likelihood choices alone."""
    return _told(labels, choices, "_new") | {"total": len(labels)}


def averages(results: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The mean over tasks of each averaged figure, over the tasks that have it."""
    columns = {name: [value for r in results if (value := r.get(name)) is not None] for name in AVERAGED}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


def _told(labels: Sequence[int], predictions: Sequence[int], end: str) -> dict[str, float | None]:
    """What both readings are told by; the standard error is that of a share, sqrt(p (1 - p) / (n - 1))."""
    total, hit = len(labels), sum(p == y for p, y in zip(predictions, labels, strict=True))
    share = hit / total if total else None
    error = None if share is None else math.sqrt(share * (1 - share) / max(1, total - 1))
    found = {"correct": hit, "incorrect": total - hit, "f1": _f1(labels, predictions), "accuracy": share}
    return {name + end: value for name, value in found.items()} | {f"accuracy{end}_stderr": error}


def _f1(labels: Sequence[int], predictions: Sequence[int]) -> float | None:
    """Mean of the classes' F1, weighted by how often a class is a label."""
    return float(f1_score(labels, predictions, average="weighted", zero_division=0)) if labels else None


def _mcc(labels: Sequence[int], predictions: Sequence[int]) -> float | None:
    """Matthews correlation, an invalid answer being a class of its own; 0 where it is not defined."""
    if not labels:
        return None
    with warnings.catch_warnings():
        # scikit-learn warns where labels and predictions hold one class; 0 is then the published figure
        warnings.simplefilter("ignore")
        return float(matthews_corrcoef(labels, predictions))
