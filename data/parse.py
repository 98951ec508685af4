"""JSON values out of a stream of bytes: one array, or one value a line; no paths, no row numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import ijson

from .base import shown

CHUNK = 1 << 16
MAX_LINE = 1 << 24
# The parser keeps the path to where it is, so its memory grows with the square of the depth.
TOO_DEEP = re.compile(rb'(?:[\[{]\s*(?:"[^"]{0,40}"\s*:\s*)?){1000}')


class Unreadable(Exception):
    """What is wrong at the current row; `scan` adds path and row."""


class JsonObject(dict[str, Any]):
    """A JSON object that remembers a key given twice, which a plain dict would drop silently."""

    __slots__ = ("duplicate",)

    def __init__(self, pairs: Iterable[tuple[str, Any]] = ()) -> None:
        self.duplicate: str | None = None
        for key, value in pairs:
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            self.duplicate = key
        super().__setitem__(key, value)


class _Watched:
    """A file that notes its end, so that an error raised only there is known as a cut."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.ended = False

    def read(self, size: int) -> bytes:
        chunk = self.file.read(size)
        self.ended = self.ended or (size > 0 and not chunk)
        if TOO_DEEP.search(chunk):
            raise Unreadable("is nested a thousand levels deep; a row must be an object of named fields")
        return chunk


def array_values(file: BinaryIO) -> Iterator[object]:
    """The values of one JSON array. Raises Unreadable."""
    watched = _Watched(file)
    try:
        yield from ijson.items(watched, "item", map_type=JsonObject, use_float=True, buf_size=CHUNK)
    except ijson.JSONError as error:
        if watched.ended:
            raise Unreadable("ends before its array is closed; the file is cut short, fetch it again") from None
        raise Unreadable(_reason(error)) from None


def _reason(error: ijson.JSONError) -> str:
    """ijson's message in one line, with what would be right."""
    # The parser gives bytes where its excerpt is not UTF-8.
    said = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
    if "invalid bytes in UTF8" in said:
        return "holds bytes that are not UTF-8; the file must be UTF-8 text"
    what, *excerpt = said.splitlines()
    near = excerpt[0].strip() if excerpt else ""
    literal = re.search(r"\b(NaN|Infinity)\b", near)
    if literal:
        return f"is not JSON near {shown(near)}: {literal[0]} is no JSON number; write a number or null"
    return f"is not JSON near {shown(near)} ({what}); the file must be one array of objects"


def line_values(file: BinaryIO) -> Iterator[object]:
    """The values of a file with one on each line, a bad line as an Unreadable; blank lines are passed over.

    Raises Unreadable at a line that is no line, or is cut short by the end of the file.
    """
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise Unreadable(f"is longer than {MAX_LINE >> 20} MiB; it must be one object a line")
        if line.isspace():
            continue
        try:
            yield json.loads(line.decode("utf-8"), object_pairs_hook=JsonObject, parse_constant=_no_constant)
        except Unreadable as error:
            yield error
        except (ValueError, RecursionError) as error:
            whole = line.endswith(b"\n")
            if not whole and getattr(error, "reason", "unexpected end of data") == "unexpected end of data":
                raise Unreadable("ends inside this row; the file is cut short, fetch it again") from None
            yield Unreadable(_line_reason(line, error))


def _line_reason(line: bytes, error: Exception) -> str:
    """Why a line is no JSON, with what would be right."""
    if isinstance(error, UnicodeDecodeError):
        return "holds bytes that are not UTF-8; the file must be UTF-8 text"
    near = shown(line[:40].decode("utf-8", "replace"))
    return f"is not JSON: {near} ({error}); it must be one object on its line"


def _no_constant(name: str) -> None:
    raise Unreadable(f"holds {name}, which is no JSON number; write a number or null")
