"""Facts as they come from Python: objects, dicts, rows of a pandas frame or of a datasets.Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from data.base import DataError, Edit, as_text, missing, place, shown, with_probes
from lifelong.answers import METRIC_OF


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact to write, with the prompts that measure it."""

    prompt: str
    answer: str
    rephrase: Sequence[str] = ()
    """The prompt asked differently (GS): one text or several."""
    unrelated: Sequence[tuple[str, str]] = ()
    """Prompts that must stay as they are, each with its own true answer (LS)."""
    mhop: Sequence[tuple[str, str]] = ()
    """Questions that the fact answers through a second one, each with its answer (mhop_score)."""
    subject: str | None = None
    """What the fact is about."""
    old_answer: str | None = None
    """What was true before."""

    def edit(self, row: int) -> Edit:
        """The fact as editors take it; those that train on a rephrased and an unrelated prompt see the first of each.

        Raises:
            DataError: a text that is missing or blank; names the fact by its position `row`.
        """
        probes = [("rephrase", prompt, self.answer) for prompt in self.rephrase]
        probes += [("unrelated", *pair) for pair in self.unrelated] + [("mhop", *pair) for pair in self.mhop]
        for kind, prompt, answer in [("prompt", self.prompt, self.answer), *probes]:
            as_text(prompt, f"the {METRIC_OF[kind]} prompt", row)
            as_text(answer, f"the answer of the {METRIC_OF[kind]} prompt", row)
        for name in ("subject", "old_answer"):
            if getattr(self, name) is not None:
                as_text(getattr(self, name), name, row)
        return with_probes(row, self.prompt, self.answer, probes, subject=self.subject, old_answer=self.old_answer)


Facts = Fact | Edit | Mapping[str, Any] | Iterable[Fact | Edit | Mapping[str, Any]] | pd.DataFrame
"""One fact or many; a mapping has prompt and answer, and may have the rest of a Fact's, or unrelated_answer."""


def facts_of(given: Facts) -> list[Fact | Edit]:
    """Every fact that was given, in order.

    Raises:
        DataError: something that is no fact, or without prompt or answer; names it by its position.
    """
    items: Any = given.to_dict("records") if isinstance(given, pd.DataFrame) else given
    if isinstance(items, Fact | Edit | Mapping):
        items = [items]
    return [_fact(item, index) for index, item in enumerate(items)]


def _fact(item: Any, index: int) -> Fact | Edit:
    if isinstance(item, Fact | Edit):
        return item
    if not isinstance(item, Mapping):
        raise DataError(f"{place(index)}: {shown(item)} is no fact; give a Fact, or a dict with prompt and answer")
    found = {
        name: value for name, value in item.items() if value is not None and value == value
    }  # NaN is unlike itself
    for name in ("prompt", "answer"):
        if name not in found:
            raise DataError(missing(found, name, index))
    rephrase = found.get("rephrase", ())
    texts = [rephrase] if isinstance(rephrase, str) else list(rephrase)
    unrelated, mhop = (_pairs(found, kind, index) for kind in ("unrelated", "mhop"))
    named = {name: found.get(name) for name in ("subject", "old_answer")}
    return Fact(found["prompt"], found["answer"], texts, unrelated, mhop, **named)


def _pairs(found: Mapping[str, Any], kind: str, index: int) -> list[tuple[str, str]]:
    """A mapping's prompts of a kind: pairs, or prompts and, under the kind's _answer, as many answers."""
    asked, said = found.get(kind, ()), found.get(f"{kind}_answer")
    try:
        if isinstance(asked, str):
            return [(asked, said)]  # type: ignore[list-item]  # None is refused with the other texts
        return (
            list(zip(asked, said, strict=True)) if said is not None else [(prompt, answer) for prompt, answer in asked]
        )
    except (TypeError, ValueError):
        raise DataError(f"{place(index)}: {kind} is {shown(asked)}; give (prompt, answer) pairs") from None


def edits_of(given: Facts) -> list[Edit]:
    """Every fact as editors take it.

    Raises:
        DataError: as facts_of and Fact.edit.
    """
    return [fact if isinstance(fact, Edit) else fact.edit(row) for row, fact in enumerate(facts_of(given))]
