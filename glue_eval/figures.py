"""The published figures of a task from labels and predictions, plus accuracies and their standard errors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

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
    total = len(labels)
    hit = sum(a == y for a, y in zip(answers, labels, strict=True))
    invalid = sum(a == INVALID for a in answers)
    found: dict[str, float | None] = {
        "correct": hit,
        "incorrect": total - hit - invalid,
        "invalid": invalid,
        "f1": _f1(labels, answers),
        "mcc": _mcc(labels, answers),
        "accuracy": hit / total if total else None,
        "accuracy_stderr": _standard_error(hit, total),
        **choice_figures(labels, choices),
    }
    if glue_flipped:
        found |= {"f1_glue": _f1(labels, _flipped(answers)), "f1_new_glue": _f1(labels, _flipped(choices))}
    return found


def choice_figures(labels: Sequence[int], choices: Sequence[int]) -> dict[str, float | None]:
    """The figures of the likelihood choices alone."""
    total = len(labels)
    hit = sum(c == y for c, y in zip(choices, labels, strict=True))
    return {
        "correct_new": hit,
        "incorrect_new": total - hit,
        "total": total,
        "f1_new": _f1(labels, choices),
        "accuracy_new": hit / total if total else None,
        "accuracy_new_stderr": _standard_error(hit, total),
    }


def averages(results: Sequence[dict[str, float | None]]) -> dict[str, float]:
    """The mean over tasks of each averaged figure, over the tasks that have it."""
    columns = {name: [r[name] for r in results if r.get(name) is not None] for name in AVERAGED}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


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


def _flipped(predictions: Sequence[int]) -> list[int]:
    return [p if p == INVALID else 1 - p for p in predictions]


def _standard_error(hit: int, total: int) -> float | None:
    """Of a share: sqrt(p (1 - p) / (n - 1))."""
    if not total:
        return None
    share = hit / total
    return math.sqrt(share * (1 - share) / max(1, total - 1))
