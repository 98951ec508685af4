"""The unit of work: one edit; the reading of a text from a row, and how messages say what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair, which no tokenizer can encode."""


Probe = tuple[str, str, str]
"""A kind of prompt (prompt, rephrase, unrelated, persona, mhop, neighbour ...), a prompt and its answer."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One fact to write, with the prompts that measure it.

    `answer` is the target of `prompt`, `rephrase` and `persona`; `unrelated` and `mhop` carry
    answers of their own. A prompt that a record does not have is None, and so is its answer.
    Where a record has several prompts of a kind, the first stands in its field and the others in `more`,
    as (kind, prompt, answer); kinds without a field of their own stand there alone: neighbour, attribute, generation.
    `subject` is what the fact is about, `old_answer` what was said before it; `aliases` are other words for `answer`.
    `row` is the record's position in its file, counted from 0.
    """

    row: int
    prompt: str
    answer: str
    rephrase: str | None
    unrelated: str | None
    unrelated_answer: str | None
    persona: str | None = None
    mhop: str | None = None
    mhop_answer: str | None = None
    subject: str | None = None
    old_answer: str | None = None
    aliases: tuple[str, ...] = ()
    more: tuple[Probe, ...] = ()

    def asked(self) -> dict[str, tuple[str, str]]:
        """The first prompt of each kind with a field that this edit has, with its answer."""
        pairs = {
            "prompt": (self.prompt, self.answer),
            "rephrase": (self.rephrase, self.answer),
            "unrelated": (self.unrelated, self.unrelated_answer),
            "persona": (self.persona, self.answer),
            "mhop": (self.mhop, self.mhop_answer),
        }
        return {name: (ask, say) for name, (ask, say) in pairs.items() if ask is not None and say is not None}

    def probes(self) -> list[Probe]:
        """Every prompt that this edit has, the edited one first."""
        return [(kind, *pair) for kind, pair in self.asked().items()] + [*self.more]


OWN_ANSWER = {"unrelated": "unrelated_answer", "mhop": "mhop_answer", "neighbour": "neighbour_answer"}
"""Kinds of prompts with answers of their own, and the key of these; prompts of other kinds share the edit's answer."""


def with_probes(row: int, prompt: str, answer: str, probes: Iterable[Probe], **more: Any) -> Edit:
    """An edit with these prompts: the first of each kind in its field, if there is one, all others in `more`."""
    first: dict[str, Any] = {"rephrase": None, "unrelated": None, "unrelated_answer": None}
    others = []
    for probe in probes:
        kind, asked, said = probe
        if kind not in ("rephrase", "unrelated", "persona", "mhop") or first.get(kind) is not None:
            others.append(probe)
            continue
        first[kind] = asked
        if kind in OWN_ANSWER:
            first[OWN_ANSWER[kind]] = said
    return Edit(row, prompt, answer, **first, **more, more=tuple(others))


class DataError(ValueError):
    """A record file or one of its rows is not what it must be; the message says what and where."""


def place(index: int) -> str:
    """How every message names a row."""
    return f"row {index} (counted from 0)"


def shown(value: object, width: int = 60) -> str:
    """`value` as it stands in a message: JSON's word for null, long values cut to `width` characters."""
    written = "null" if value is None else repr(value)
    return written if len(written) <= width else written[: width - 3] + "..."


def missing(found: Iterable[str], field: str, index: int) -> str:
    """How messages say that row number `index` has no such field, and which it has."""
    names = shown(", ".join(found), 300) if found else "none"
    return f"{place(index)}: field {field!r} is missing; it must be a non-empty string (fields found: {names})"


def text(row: Mapping[str, Any], field: str, index: int) -> str:
    """The string in `field` of row number `index`, unchanged.

    Raises DataError, naming row, field and value, unless it is a string with something in it.
    """
    if field not in row:
        raise DataError(missing(row, field, index))
    return as_text(row[field], f"field {field!r}", index)


def as_text(value: object, name: str, index: int) -> str:
    """`value` if it is a string that is not blank; `name` says in the message where it was found.

    Raises DataError for anything else, and for half a surrogate pair.
    """
    if not isinstance(value, str):
        raise DataError(f"{place(index)}: {name} is {shown(value)}; it must be a non-empty string")
    if not value or value.isspace():
        kind = "blank" if value else "empty"
        raise DataError(f"{place(index)}: {name} is {kind} ({shown(value)}); it must be a non-empty string")
    if HALF_PAIR.search(value):
        raise DataError(
            f"{place(index)}: {name} is {shown(value)}, which holds half a surrogate pair; it must be Unicode text"
        )
    return value
