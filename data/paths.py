"""Where a field map finds a value in a record: a name, or a path into nested objects and lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ABSENT = object()
"""What stands at a path that a record does not have."""


def find(row: Mapping[str, Any], path: str) -> tuple[str, Any]:
    """Of alternatives (`ans|alt`) the first that the record has, and its value; else the first, and ABSENT."""
    if path in row:
        return path, row[path]
    options = path.split("|")
    for option in options:
        value = look_up(row, option)
        if value is not ABSENT:
            return option, value
    return options[0], ABSENT


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """The value of a field, or at a dotted path into nested objects and lists; else ABSENT.

    `locality.0.loc` is that of the first entry, `locality[].loc` a list with that of every entry, ABSENT where an
    entry has none.
    """
    if path in row:
        return row[path]
    head, every, tail = path.partition("[]")
    if every:
        entries, rest = look_up(row, head), tail.removeprefix(".")
        if not isinstance(entries, list):
            return ABSENT
        found = [look_up(entry, rest) if isinstance(entry, Mapping) else ABSENT for entry in entries]
        return entries if not rest else found
    value: Any = row
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value


def paths(row: Mapping[str, Any], depth: int = 4, prefix: str = "") -> Iterator[str]:
    """The fields of a record as a field map would name them; a list of objects by its first."""
    for name, value in row.items():
        inner = {"0": value[0]} if isinstance(value, list) and value and isinstance(value[0], Mapping) else value
        if depth and inner and isinstance(inner, Mapping):
            yield from paths(inner, depth - 1, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
