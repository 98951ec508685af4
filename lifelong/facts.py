"""Facts as they come from Python: objects, dicts, rows of a pandas frame or of a datasets.Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from data.base import DataError, Edit, as_text, missing, place, shown
from lifelong.answers import probes


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact to write, with the prompts that measure it."""

    prompt: str
    answer: str
    rephrase: Sequence[str] = ()
    """The prompt asked differently (GS): one text or several."""
    unrelated: Sequence[tuple[str, str]] = ()
    """Prompts that must stay as they are, each with its own true answer (LS)."""

    def edit(self, row: int) -> Edit:
        """The fact as editors take it; those that train on a rephrased and an unrelated prompt see the first of each.

        Raises:
            DataError: a text that is missing or blank; names the fact by its position `row`.
        """
        for metric, prompt, answer in self.asked():
            as_text(prompt, f"the {metric} prompt", row)
            as_text(answer, f"the answer of the {metric} prompt", row)
        rephrase = next(iter(self.rephrase), None)
        return Edit(row, self.prompt, self.answer, rephrase, *next(iter(self.unrelated), (None, None)))

    def asked(self) -> list[tuple[str, str, str]]:
        """(metric, prompt, answer) of everything that measures this fact."""
        return [
            ("ES", self.prompt, self.answer),
            *(("GS", prompt, self.answer) for prompt in self.rephrase),
            *(("LS", prompt, answer) for prompt, answer in self.unrelated),
        ]


Facts = Fact | Edit | Mapping[str, Any] | Iterable[Fact | Edit | Mapping[str, Any]] | pd.DataFrame
"""One fact or many; a mapping has prompt and answer, and may have rephrase, unrelated and unrelated_answer."""


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
    rephrase, unrelated = found.get("rephrase", ()), found.get("unrelated", ())
    if isinstance(unrelated, str):
        unrelated = [(unrelated, found.get("unrelated_answer"))]
    try:
        pairs = [(prompt, answer) for prompt, answer in unrelated]
    except (TypeError, ValueError):
        raise DataError(f"{place(index)}: unrelated is {shown(unrelated)}; give (prompt, answer) pairs") from None
    return Fact(found["prompt"], found["answer"], [rephrase] if isinstance(rephrase, str) else list(rephrase), pairs)


def edits_of(given: Facts) -> list[Edit]:
    """Every fact as editors take it.

    Raises:
        DataError: as facts_of and Fact.edit.
    """
    return [fact if isinstance(fact, Edit) else fact.edit(row) for row, fact in enumerate(facts_of(given))]


def asked_of(fact: Fact | Edit, *, mhop: bool) -> list[tuple[str, str, str]]:
    """(metric, prompt, answer) of everything that measures a fact."""
    if isinstance(fact, Fact):
        return fact.asked()
    return [(metric, prompt, answer) for metric, (prompt, answer) in probes(fact, mhop=mhop).items()]
