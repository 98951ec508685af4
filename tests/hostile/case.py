"""What a case is, what must come of it, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.clean import Clean

Differences = Callable[[Path, Clean], list[str]]
"""How what a case left in its folder differs from what nobody spoiled."""
OUTCOMES = ("refused", "accepted", "TRACEBACK", "HANG", "WRONG", "NO WORDS")
GOOD = OUTCOMES[:2]
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # transformers writes its tables so
LONGEST = 3000  # characters of a message; the 300 of a bad value may stand in it more than once


@dataclass(frozen=True, slots=True)
class Wants:
    """What must come of a case: `refused` in words, `accepted` with the reason, or either of them.

    `words` must stand in the refusal, one of each tuple among them; `same` compares what an accepted case left.
    """

    refused: bool
    accepted: bool
    words: tuple[str | tuple[str, ...], ...] = ()
    why: str = ""
    same: Differences | None = None


def refused(*words: str | tuple[str, ...]) -> Wants:
    """It must be refused with these words."""
    return Wants(refused=True, accepted=False, words=words)


def accepted(why: str, same: Differences | None = None) -> Wants:
    """It must be accepted, for this reason, with the same numbers."""
    return Wants(refused=False, accepted=True, why=why, same=same)


def either(why: str, *words: str | tuple[str, ...], same: Differences | None = None) -> Wants:
    """It may be refused with these words, or accepted for this reason with the same numbers."""
    return Wants(refused=True, accepted=True, words=words, why=why, same=same)


@dataclass(frozen=True, slots=True)
class Case:
    """One row: `make` spoils something in the case's own folder and gives the command line to run there.

    `before` is called in the case's process last, for what no file can say: a full disk, another home.
    """

    group: str
    name: str
    make: Callable[[Path, Clean], Sequence[str]]
    wants: Wants
    before: Callable[[Path], None] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case; `note` says what is wrong, `said` is the end of what it printed."""

    case: Case
    kind: str
    note: str
    said: str
    seconds: float

    @property
    def bad(self) -> bool:
        """Whether it is none of what is right."""
        return self.kind not in GOOD


def judge(wants: Wants, code: int | None, output: str, differences: Callable[[], list[str]]) -> tuple[str, str]:
    """The kind of outcome and what is wrong; `code` is None where the case ran out of time."""
    if code is None:
        return "HANG", "it ran out of time"
    if code < 0:
        return "TRACEBACK", f"killed by signal {-code}"
    if "Traceback (most recent call last)" in output:
        return "TRACEBACK", output.strip().splitlines()[-1]
    if control := CONTROL.search(COLOURS.sub("", output)):
        return "WRONG", f"the control character {control[0]!r} reaches the terminal"
    return _judge_refusal(wants, output) if code else _judge_acceptance(wants, differences)


def _judge_acceptance(wants: Wants, differences: Callable[[], list[str]]) -> tuple[str, str]:
    if not wants.accepted:
        return "WRONG", f"accepted; it must be refused with {wants.words}"
    found = differences()
    return ("WRONG", "; ".join(found)) if found else ("accepted", "")


def _judge_refusal(wants: Wants, output: str) -> tuple[str, str]:
    said = message(output)
    if not wants.refused:
        return "WRONG", f"refused; it must be accepted: {wants.why}"
    if not said:
        return "NO WORDS", "it said nothing"
    lacking = [word for word in wants.words if not any(w in said for w in ([word] if isinstance(word, str) else word))]
    if lacking:
        return "NO WORDS", f"the refusal lacks {lacking}"
    return ("NO WORDS", f"a refusal of {len(said)} characters") if len(said) > LONGEST else ("refused", "")


def message(output: str) -> str:
    """The refusal: what stands from the last line that begins with "error:" on; all of it where none does (Hydra's)."""
    at = max(output.rfind("\nerror:"), 0 if output.startswith("error:") else -1)
    return output[at:].strip() if at >= 0 else output.strip()
