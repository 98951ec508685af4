"""The names of edit sites in short: model.layers.{28-31}.mlp.down_proj is that module of the layers 28, 29, 30 and 31.

A brace holds whole numbers and ranges of them, {11,12,22-24}; of several braces the last counts fastest.
On the command line Hydra wants a name with braces in double quotes, and the shell the whole word in single ones:
'model.edit_modules=["model.layers.{28-31}.mlp.down_proj"]'. The program adds the double quotes where they are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from math import prod

from config.errors import ConfigError

KEY = "model.edit_modules"
MOST = 100_000  # names in one entry; more is a slip of the keyboard that would fill the memory
BRACE = re.compile(r"\{([^{}]*)\}")
LISTED = re.compile(r"(?:0|[1-9][0-9]{0,5})(?:-(?:0|[1-9][0-9]{0,5}))?")  # 28 or 28-31
LAYER = re.compile(r"(?<![^.])(?:0|[1-9][0-9]{0,5})(?![^.])")  # a dotted name's part that is a number
ELEMENT = re.compile(r"[^\[\],{}\s]*(?:(?:\{[^{}\[\]]*\}|[{}])[^\[\],{}\s]*)+")  # with braces, of a list of words


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


def fold_sites(names: Sequence[str]) -> list[str]:
    """Names as entries with ranges, such that expand_sites gives the names back in their order."""
    entries = [(pattern(name), [[number] for number in layers(name)]) for name in names]
    for place in reversed(range(max((len(columns) for _, columns in entries), default=0))):
        kept: list[tuple[str, list[list[int]]]] = []  # the last column first, since it counts fastest
        for name, columns in entries:
            if kept and kept[-1][0] == name and _goes_on(kept[-1][1], columns, place):
                kept[-1][1][place] += columns[place]
            else:
                kept.append((name, columns))
        entries = kept
    return [name.format(*(f"{{{ranges(c)}}}" if len(c) > 1 else c[0] for c in columns)) for name, columns in entries]


def _goes_on(first: list[list[int]], second: list[list[int]], place: int) -> bool:
    """Whether two entries' numbers differ in the column at `place` alone and count up in it; keeps the names' order."""
    differ = [at for at, (mine, its) in enumerate(zip(first, second, strict=True)) if mine != its]
    return differ == [place] and first[place][-1] < second[place][0]


def override(names: Sequence[str]) -> str:
    """The names as a word for the command line, which the shell wants in single quotes."""
    return quoted(f"{KEY}=[{','.join(fold_sites(names))}]")


def quoted(word: str) -> str:
    """A command-line word with the double quotes that Hydra wants around sites with braces and paths into lists."""
    key, _, value = word.partition("=")
    if key.startswith("dataset.fields.") and re.fullmatch(r"[\w.|]*\w\[\][\w.|\[\]]*", value):
        return f'{key}="{value}"'
    if key.lstrip("+") not in (KEY, "tune_sites") or re.search(r"""["'\\$]""", value):
        return word
    return key + "=" + ELEMENT.sub(r'"\g<0>"', value)
