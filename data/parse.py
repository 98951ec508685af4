"""Values out of a stream of bytes: one JSON array, a JSON value a line, or CSV; no paths, no row numbers."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import ijson

from .base import shown

CHUNK = 1 << 16
MAX_LINE = 1 << 24
NOT_UTF8 = "holds bytes that are not UTF-8; the file must be UTF-8 text"
# The parser keeps the path to where it is, so its memory grows with the square of the depth.
TOO_DEEP = re.compile(rb'(?:[\[{]\s*(?:"[^"]{0,40}"\s*:\s*)?){1000}')


class Unreadable(Exception):
    """What is wrong at the current row; `scan` adds path and row."""


class JsonObject(dict[str, Any]):
    """A row, from JSON or CSV, that remembers a key given twice, which a plain dict would drop silently."""

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
        return NOT_UTF8
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
        return NOT_UTF8
    near = shown(line[:40].decode("utf-8", "replace"))
    return f"is not JSON: {near} ({error}); it must be one object on its line"


def _no_constant(name: str) -> None:
    raise Unreadable(f"holds {name}, which is no JSON number; write a number or null")


def csv_values(file: BinaryIO) -> Iterator[object]:
    """The rows of a CSV file by its header, a bad row as an Unreadable; empty lines are passed over.

    Raises Unreadable where the reading cannot go on: a quote that is not closed, a header that is none.
    """
    # bytes that are no UTF-8 come through as surrogates, so that the row which holds them can be named
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    header: list[str] | None = None
    try:
        for cells in csv.reader(_lines(text), strict=True):
            if header is None and cells:
                header = _header(cells)
            elif header is not None and cells:
                yield _csv_row(header, cells)
    except csv.Error as error:
        raise Unreadable(f"is not CSV ({error}); is a quote left open? Write a quote inside a cell twice") from None
    finally:
        text.detach()


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise Unreadable(f"has a line longer than {MAX_LINE >> 20} MiB; it must be one row a line")
        yield line


def _header(cells: list[str]) -> list[str]:
    if len(cells) == 1 and re.search("[;\t|]", cells[0]):
        raise Unreadable(f"the header is one column, {shown(cells[0])}; the columns must be separated by commas")
    if not _is_text(cells):
        raise Unreadable(NOT_UTF8)
    return [cell.strip() for cell in cells]


def _csv_row(header: list[str], cells: list[str]) -> object:
    if not _is_text(cells):
        return Unreadable(NOT_UTF8)
    if len(cells) != len(header):
        return Unreadable(
            f"has {len(cells)} cells where the header has {len(header)} ({shown(', '.join(header), 300)}); "
            "put a cell that holds a comma in quotes"
        )
    return JsonObject(zip(header, cells, strict=True))


def _is_text(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True
