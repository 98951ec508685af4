"""Record files read row by row: `.json` (one array), `.jsonl` (an object a line), `.csv` (with a header).

Each also as `.xz` or `.gz`. No more than a chunk of the file is ever held, and nothing is read past
what the consumer asks for.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, AnyStr, BinaryIO

import ijson

from .base import HALF_PAIR, DataError, place, shown

CHUNK = 1 << 16
MAX_LINE = 1 << 24
NAME = re.compile(r".*(\.json|\.jsonl|\.csv)(\.xz|\.gz)?", re.IGNORECASE | re.DOTALL)
FORMATS = ".json, .jsonl or .csv, alone or compressed as .xz or .gz"
OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
DAMAGED = (OSError, lzma.LZMAError, zlib.error)
NOT_UTF8 = "holds bytes that are not UTF-8; the file must be UTF-8 text"
# The parser keeps the path to where it is, so its memory grows with the square of the depth.
TOO_DEEP = re.compile(rb'(?:[\[{]\s*(?:"[^"]{0,40}"\s*:\s*)?){1000}')


class Unreadable(Exception):
    """What is wrong with the file or its current row; `scan` says where."""


def iter_rows(path: str | os.PathLike[str], how_to_get: str = "") -> Iterator[dict[str, Any]]:
    """The rows of a record file, in order.

    `how_to_get` is the command to name if the file is not there. Raises DataError, naming path and
    row, at the first thing that is wrong; rows before it have been given.
    """
    for row in scan(path, how_to_get):
        if isinstance(row, DataError):
            raise row
        yield row


def scan(path: str | os.PathLike[str], how_to_get: str = "") -> Iterator[dict[str, Any] | DataError]:
    """As `iter_rows`, but a bad row that others can be read after comes as a DataError in its place.

    Raises DataError where reading cannot go on: no such file, not JSON, cut short.
    """
    path = Path(path)
    where = str(path)
    try:
        with _open(path, how_to_get) as file:
            values = _values(path, file)
            where = f"{path}: {place(0)}"
            for index, value in enumerate(values, start=1):
                yield _row(where, value)
                where = f"{path}: {place(index)}"
    except EOFError:
        said = "its compressed data ends too soon; the file is cut short, fetch it again"
        raise DataError(f"{where}: {said}") from None
    except Unreadable as error:
        raise DataError(f"{where}: {error}") from None
    except DAMAGED as error:
        raise DataError(f"{where}: cannot be read ({error}); fetch the file again") from None


def _open(path: Path, how_to_get: str) -> BinaryIO:
    """The file's bytes, decompressed. Raises Unreadable if there is nothing to read."""
    if path.is_dir():
        raise Unreadable(f"is a directory; name the record file inside it ({FORMATS})")
    try:
        if path.stat().st_size == 0:
            raise Unreadable("is empty (0 bytes); fetch it again")
        return OPENERS.get(path.suffix.lower(), open)(path, "rb")
    except FileNotFoundError:
        here = "" if path.is_absolute() else f" in {Path.cwd()}"
        get = f"; get it with: {how_to_get}" if how_to_get else "; check the path"
        raise Unreadable(f"no such file{here}{get}") from None
    except OSError as error:
        raise Unreadable(f"cannot be opened ({error.strerror}); it must be a readable file") from None


def _values(path: Path, file: BinaryIO) -> Iterator[object]:
    """The values in a file of the kind that its name says. Raises Unreadable if its first bytes say another."""
    kind = NAME.fullmatch(path.name)
    if not kind:
        raise Unreadable(f"the name of a record file must end in {FORMATS}")
    read = {".json": array_values, ".jsonl": line_values, ".csv": csv_values}[kind[1].lower()]
    try:
        head = file.read(CHUNK)
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
    except EOFError:
        return read(file)  # cut short: the reading proper says so
    except DAMAGED as error:
        raise Unreadable(f"is no {path.suffix} file ({error}); fetch it again") from None
    head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not head:
        raise Unreadable("is empty but for white space; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise Unreadable("is a Git LFS pointer, not the file it stands for; fetch the file itself")
    if read is array_values and not head.startswith(b"["):
        what = "JSON but no array" if head.startswith(b"{") else "no JSON array"
        raise Unreadable(
            f"is {what} (starts with {shown(head[:20].decode('utf-8', 'replace'))}); it must be one array: [{{...}}, "
            "...] (a file with one object a line is named .jsonl)"
        )
    if read is line_values and head.startswith(b"["):
        raise Unreadable("starts with '['; a .jsonl file has one object a line (an array is named .json)")
    return read(file)


def _row(where: str, value: object) -> dict[str, Any] | DataError:
    """`value` as a row, or the error that says why it is none."""
    if isinstance(value, Unreadable):
        return DataError(f"{where}: {value}")
    if not isinstance(value, JsonObject):
        return DataError(f"{where} is {shown(value)}; it must be an object of named fields")
    if value.duplicate is not None:
        return DataError(
            f"{where}: field {value.duplicate!r} is there twice (the last is {shown(value[value.duplicate])});"
            " a row must name a field once"
        )
    return value


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
    except UnicodeDecodeError:  # the parser's word for an escape such as \ud800 that stands alone
        raise Unreadable("holds half a surrogate pair; the file must be Unicode text") from None
    except ijson.JSONError as error:
        if watched.ended:
            raise Unreadable("ends before its array is closed; the file is cut short, fetch it again") from None
        raise Unreadable(_array_reason(error)) from None


def _array_reason(error: ijson.JSONError) -> str:
    """ijson's message in one line, with what would be right."""
    # The parser gives bytes where its excerpt is not UTF-8.
    said = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
    if "invalid bytes in UTF8" in said:
        return NOT_UTF8
    what, *excerpt = said.splitlines()
    near = excerpt[0].strip() if excerpt else ""
    if literal := re.search(r"\b(NaN|Infinity)\b", near):
        return f"is not JSON near {shown(near)}: {literal[0]} is no JSON number; write a number or null"
    return f"is not JSON near {shown(near)} ({what}); the file must be one array of objects"


def _lines(file: IO[AnyStr], too_long: str) -> Iterator[AnyStr]:
    """The lines of a file. Raises Unreadable(too_long) at one that would fill the memory."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise Unreadable(too_long)
        yield line


def line_values(file: BinaryIO) -> Iterator[object]:
    """The values of a file with one on each line, a bad line as an Unreadable; blank lines are passed over.

    Raises Unreadable at a line that is no line, or is cut short by the end of the file.
    """
    for line in _lines(file, f"is longer than {MAX_LINE >> 20} MiB; it must be one object a line"):
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
            near = shown(line[:40].decode("utf-8", "replace"))
            not_json = f"is not JSON: {near} ({error}); it must be one object on its line"
            yield Unreadable(NOT_UTF8 if isinstance(error, UnicodeDecodeError) else not_json)


def _no_constant(name: str) -> None:
    raise Unreadable(f"holds {name}, which is no JSON number; write a number or null")


def csv_values(file: BinaryIO) -> Iterator[object]:
    """The rows of a CSV file by its header, a bad row as an Unreadable; empty lines are passed over.

    Raises Unreadable where the reading cannot go on: a quote that is not closed, a header that is none.
    """
    # bytes that are no UTF-8 come through as surrogates, so that the row which holds them can be named
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    lines = _lines(text, f"has a line longer than {MAX_LINE >> 20} MiB; it must be one row a line")
    rows = filter(None, csv.reader(lines, strict=True))
    try:
        header = _header(next(rows, []))
        yield from (_csv_row(header, cells) for cells in rows)
    except csv.Error as error:
        raise Unreadable(f"is not CSV ({error}); is a quote left open? Write a quote inside a cell twice") from None


def _header(cells: list[str]) -> list[str]:
    if len(cells) == 1 and re.search("[;\t|]", cells[0]):
        raise Unreadable(f"the header is one column, {shown(cells[0])}; the columns must be separated by commas")
    if HALF_PAIR.search("".join(cells)):
        raise Unreadable(NOT_UTF8)
    return [cell.strip() for cell in cells]


def _csv_row(header: list[str], cells: list[str]) -> object:
    if HALF_PAIR.search("".join(cells)):
        return Unreadable(NOT_UTF8)
    if len(cells) != len(header):
        return Unreadable(
            f"has {len(cells)} cells where the header has {len(header)} ({shown(', '.join(header), 300)}); "
            "put a cell that holds a comma in quotes"
        )
    return JsonObject(zip(header, cells, strict=True))
