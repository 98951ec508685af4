"""The names of edit sites in short: model.layers.{28-31}.mlp.down_proj is that module of the layers 28, 29, 30 and 31.

A brace holds whole numbers and ranges of them, {11,12,22-24}; of several braces the last counts fastest.
On the command line Hydra wants a name with braces in double quotes, and the shell the whole word in single ones:
'model.edit_modules=["model.layers.{28-31}.mlp.down_proj"]'. The program adds the double quotes where they are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod

from config.errors import ConfigError

KEY = "model.edit_modules"
MOST = 100_000  # names in one entry; more is a slip of the keyboard that would fill the memory
BRACE = re.compile(r"\{([^{}]*)\}")
LISTED = re.compile(r"(?:0|[1-9][0-9]{0,5})(?:-(?:0|[1-9][0-9]{0,5}))?")  # 28 or 28-31
LAYER = re.compile(r"(?<![^.])(?:0|[1-9][0-9]{0,5})(?![^.])")  # a dotted name's part that is a number
ELEMENT = re.compile(r"(?:[^\[\],{}\s]|\{[^{}\[\]]*\}|[{}])+")  # of a list on the command line


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in increasing order, each once: 0-3,5."""
    ordered = sorted(set(numbers))
    cuts = [i + 1 for i, (a, b) in enumerate(pairwise(ordered)) if b != a + 1]
    runs = [ordered[i:j] for i, j in pairwise([0, *cuts, len(ordered)])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs if run)


def pattern(name: str) -> str:
    """A module's name without its layers' numbers: model.layers.{}.mlp.down_proj."""
    return LAYER.sub("{}", name)


def layers(name: str) -> list[int]:
    """The numbers of a module's name, outermost first."""
    return [int(number) for number in LAYER.findall(name)]


def expand_sites(entries: Sequence[str]) -> list[str]:
    """Every name that the entries stand for, in their order; an entry without braces is itself.

    Raises:
        ConfigError: a brace that is empty, not closed, not of whole numbers, or counts down; names the entry.
    """
    return [name for entry in entries for name in _expand(entry)]


def _expand(entry: str) -> list[str]:
    if re.search(r"[{}]", BRACE.sub("", entry)):
        raise _bad(entry, "its braces do not match")
    columns = [_listed(entry, text) for text in BRACE.findall(entry)]
    if prod(len(column) for column in columns) > MOST:
        raise _bad(entry, f"stands for more than {MOST:,} modules")
    template = BRACE.sub("{}", entry)
    return [template.format(*numbers) for numbers in product(*columns)]


def _listed(entry: str, text: str) -> list[int]:
    """The numbers of one brace in the order written."""
    found: list[int] = []
    for run in text.split(","):
        if not LISTED.fullmatch(run):
            raise _bad(entry, f"{{{text}}} does not list whole numbers")
        first, _, last = run.partition("-")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers:
            raise _bad(entry, f"{{{text}}} counts down, write {last}-{first}")
        found += numbers
    return found


def _bad(entry: str, what: str) -> ConfigError:
    return ConfigError(
        f"{KEY}={entry}: {what}; name layers as model.layers.{{28-31}}.mlp.down_proj or "
        "model.layers.{11,12,22-24}.mlp.down_proj"
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A pattern and the numbers that stand in each of its gaps."""

    pattern: str
    columns: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        return self.pattern.format(*(str(c[0]) if len(c) == 1 else f"{{{ranges(c)}}}" for c in self.columns))

    def joined(self, other: _Entry, place: int) -> _Entry | None:
        """Both as one, if they differ in the column at `place` alone and count up in it; keeps the names' order."""
        mine, its = list(self.columns), list(other.columns)
        if self.pattern != other.pattern or place >= len(mine):
            return None
        first, second = mine.pop(place), its.pop(place)
        if mine != its or first[-1] >= second[0]:
            return None
        return _Entry(self.pattern, (*mine[:place], first + second, *mine[place:]))


def fold_sites(names: Sequence[str]) -> list[str]:
    """Names as entries with ranges, such that expand_sites gives the names back in their order."""
    entries = [_Entry(pattern(name), tuple((number,) for number in layers(name))) for name in names]
    for place in reversed(range(max((len(entry.columns) for entry in entries), default=0))):
        kept: list[_Entry] = []  # the last column first, since it counts fastest
        for entry in entries:
            both = kept[-1].joined(entry, place) if kept else None
            if both is None:
                kept.append(entry)
            else:
                kept[-1] = both
        entries = kept
    return [str(entry) for entry in entries]


def override(names: Sequence[str]) -> str:
    """The names as a word for the command line, which the shell wants in single quotes."""
    return quoted(f"{KEY}=[{','.join(fold_sites(names))}]")


def quoted(word: str) -> str:
    """A command-line word with the double quotes that Hydra wants around sites with braces; others as they are."""
    key, _, value = word.partition("=")
    if key.lstrip("+") != KEY or re.search(r"""["'\\$]""", value):
        return word
    return f"{key}={ELEMENT.sub(lambda found: _in_quotes(found[0]), value)}"


def _in_quotes(element: str) -> str:
    return f'"{element}"' if "{" in element or "}" in element else element
