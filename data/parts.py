"""Records that hold several edits (dataset.each)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .base import Edit
from .paths import look_up


def parts(row: Mapping[str, Any], each: str | None) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """A record, or one for every entry of its list `each`, the entry in the list's place; whether it is the last."""
    entries = None if each is None else look_up(row, each)
    if each is None or not isinstance(entries, list) or not entries:
        yield row, True
        return
    for number, entry in enumerate(entries, start=1):
        yield {**row, each: entry}, number == len(entries)


def without_mhop(edit: Edit) -> Edit:
    """An edit without the multi-hop questions: they need the record's other edits too."""
    more = tuple(probe for probe in edit.more if probe[0] != "mhop")
    return replace(edit, mhop=None, mhop_answer=None, more=more)
