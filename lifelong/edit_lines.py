"""An edit's line of edits.jsonl: what was asked and what was said."""

from __future__ import annotations

from typing import Any

from data.base import Edit
from lifelong.answers import grouped
from lifelong.scorer import Scores

ASKED = ("row", "prompt", "answer", "rephrase", "unrelated", "unrelated_answer", "persona", "mhop", "mhop_answer")
"""What edits.jsonl says of an edit."""


def example(line: dict[str, Any]) -> dict[str, Any]:
    """What the terminal shows of a line."""
    before = line["before"]["ES"]["generated"] if line["before"] else None
    named = {name: line[name] for name in ("index", "step", "prompt", "target")}
    return named | {"before": before, "after": line["after"]["ES"]["generated"]}


def texts(edit: Edit) -> dict[str, Any]:
    """What was asked, by name: a text, or a list where there are several prompts of a kind."""
    told = {name.replace("answer", "target"): getattr(edit, name) for name in ASKED}
    told = {name: text for name, text in told.items() if text is not None}
    for kind, more in grouped((kind for kind, *_ in edit.more), edit.more).items():
        if kind in told:
            told[kind] = [told[kind], *(prompt for _, prompt, _ in more)]
            if f"{kind}_target" in told:
                told[f"{kind}_target"] = [told[f"{kind}_target"], *(answer for *_, answer in more)]
    return told


def without_ids(scores: Scores | None) -> Scores | None:
    """Scores without token ids, which mean nothing to a reader."""
    if scores is None:
        return None
    return {metric: _shown(found) for metric, found in scores.items()}


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in found.items() if name != "ids"}
    return shown | {"each": [_shown(one) for one in found["each"]]} if "each" in found else shown
