"""Record files read row by row: `.json` (one array), `.jsonl` (an object a line), `.csv` (with a header).

Each also as `.xz` or `.gz`. No more than a chunk of the file, or a record, is ever held, and nothing is read past
what the consumer asks for.
"""

from __future__ import annotations

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
from typing import Any, BinaryIO, TextIO

from .base import HALF_PAIR, DataError, place, shown

CHUNK = 1 << 16
MAX_RECORD = 1 << 24
NAME = re.compile(r".*(\.json|\.jsonl|\.csv)(\.xz|\.gz)?", re.IGNORECASE | re.DOTALL)
FORMATS = ".json, .jsonl or .csv, alone or compressed as .xz or .gz"
OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error)
NOT_UTF8 = "holds bytes that are not UTF-8; the file must be UTF-8 text"
TOO_LONG = f"is longer than {MAX_RECORD >> 20} MiB, which no record may be; is a quote or a bracket left open?"
NEXT = re.compile(r"[ \t\r\n]*([^ \t\r\n])")
UNFINISHED = re.compile(r"-|\.|[eE][-+]?|t(ru?)?|f(a(ls?)?)?|n(ul?)?|\\?u?[0-9a-fA-F]{0,4}")
"""What may stand last in JSON that is cut short, from the place on that the decoder complains of."""


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
    except Unreadable as error:
        raise DataError(f"{where}: {error}") from None
    except DAMAGED as error:
        said = f"cannot be read ({error}): the file is cut short, damaged or no {path.suffix} file; fetch it again"
        raise DataError(f"{where}: {said}") from None


def _open(path: Path, how_to_get: str) -> BinaryIO:
    """The file's bytes, decompressed. Raises Unreadable if there is nothing to read."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise Unreadable(f"is a directory; name the record file inside it ({FORMATS})")
        if not path.is_file():
            raise Unreadable("is not a regular file but a pipe, a socket or a device; it must be a file of records")
        if size == 0:
            raise Unreadable("is empty (0 bytes); fetch it again")
        return OPENERS.get(path.suffix.lower(), open)(path, "rb")
    except FileNotFoundError:
        here = "" if path.is_absolute() else f" in {Path.cwd()}"
        get = f"; get it with: {how_to_get}" if how_to_get else "; check the path"
        raise Unreadable(f"no such file{here}{get}") from None
    except OSError as error:
        raise Unreadable(f"cannot be opened ({error.strerror}); it must be a readable file") from None


def _values(path: Path, file: BinaryIO) -> Iterator[object]:
    """The values in a file of the kind that its name says. Raises Unreadable if its first characters say another."""
    kind = NAME.fullmatch(path.name)
    if not kind:
        raise Unreadable(f"the name of a record file must end in {FORMATS}")
    read = {".json": array_values, ".jsonl": line_values, ".csv": csv_values}[kind[1].lower()]
    # bytes that are no UTF-8 come through as surrogates, so that the row which holds them can be named
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    head = text.read(CHUNK).lstrip()
    text.seek(0)
    if not head:
        raise Unreadable("is empty but for white space; fetch it again")
    if head.startswith("version https://git-lfs"):
        raise Unreadable("is a Git LFS pointer, not the file it stands for; fetch the file itself")
    if read is array_values and not head.startswith("["):
        what = "JSON but no array" if head.startswith("{") else "no JSON array"
        raise Unreadable(
            f"is {what} (starts with {shown(head[:20])}); it must be one array: [{{...}}, ...] "
            "(a file with one object a line is named .jsonl)"
        )
    if read is line_values and head.startswith("["):
        raise Unreadable("starts with '['; a .jsonl file has one object a line (an array is named .json)")
    return read(text)


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
            if key in self:
                self.duplicate = key
            self[key] = value


def _no_constant(name: str) -> None:
    raise Unreadable(f"holds {name}, which is no JSON number; write a number or null")


DECODER = json.JSONDecoder(object_pairs_hook=JsonObject, parse_constant=_no_constant)


def array_values(file: TextIO) -> Iterator[object]:
    """The values of one JSON array, one that is no UTF-8 as an Unreadable. Raises Unreadable."""
    ahead = _Ahead(file)
    sign = ahead.take("[") and ahead.take("]")
    while sign != "]":
        yield ahead.value()
        if not (sign := ahead.take(",]")):
            raise ahead.wrong("expecting ',' or ']'", ahead.at)
    ahead.take("")
    if ahead.at < len(ahead.text):
        raise ahead.wrong("the array was closed before it", ahead.at)


class _Ahead:
    """What was read of an array and not used yet: the text from position `at` on. Its methods raise Unreadable."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at = file, "", 0

    def more(self) -> bool:
        """Read on, as much again as is there: a long record is not parsed anew for every chunk. False at the end."""
        rest = self.text[self.at :]
        if len(rest) >= MAX_RECORD:
            raise Unreadable(TOO_LONG)
        if read := self.file.read(min(max(CHUNK, len(rest)), MAX_RECORD - len(rest))):
            self.text, self.at = rest + read, 0
        return bool(read)

    def take(self, signs: str) -> str:
        """Go to the next character that is no white space, and past it if it is one of `signs`; else give ""."""
        while not (found := NEXT.match(self.text, self.at)):
            self.at = len(self.text)
            if not self.more():
                return ""
        self.at = found.end() if found[1] in signs else found.start(1)
        return found[1] if found[1] in signs else ""

    def value(self) -> object:
        """The next value, or an Unreadable in its place."""
        self.take("")
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
                # a number may go on behind what was read
                if end + 2 < len(self.text) or not self.more():
                    break
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or UNFINISHED.fullmatch(self.text, error.pos)
                if not cut or not self.more():
                    raise self.wrong(error.msg, len(self.text) if cut else error.pos) from None
            except RecursionError:
                raise Unreadable("is nested a thousand levels deep; a row must be an object of named fields") from None
            except ValueError as error:
                raise self.wrong(str(error), self.at) from None
        start, self.at = self.at, end
        return Unreadable(NOT_UTF8) if HALF_PAIR.search(self.text, start, end) else value

    def wrong(self, what: str, at: int) -> Unreadable:
        """The error to raise: `what` is wrong at a place of the text, which at its end is that it goes no further."""
        if at == len(self.text):
            return Unreadable("ends before its array is closed; the file is cut short, fetch it again")
        near = shown(self.text[max(at - 20, 0) : at + 40])
        return Unreadable(f"is not JSON near {near} ({what}); the file must be one array of objects")


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file. Raises Unreadable at one that would fill the memory."""
    while line := file.readline(MAX_RECORD):
        if len(line) == MAX_RECORD:
            raise Unreadable(TOO_LONG)
        yield line


def line_values(file: TextIO) -> Iterator[object]:
    """The values of a file with one on each line, a bad line as an Unreadable; blank lines are passed over.

    Raises Unreadable at a line that is no line, or is cut short by the end of the file.
    """
    for line in _lines(file):
        if line.isspace():
            continue
        try:
            value = DECODER.decode(line)
        except Unreadable as error:
            value = error
        except (ValueError, RecursionError) as error:
            if line[-1] not in "\r\n":
                raise Unreadable("ends inside this row; the file is cut short, fetch it again") from None
            value = Unreadable(f"is not JSON: {shown(line[:40])} ({error}); it must be one object on its line")
        yield Unreadable(NOT_UTF8) if HALF_PAIR.search(line) else value


def csv_values(file: TextIO) -> Iterator[object]:
    """The rows of a CSV file by its header, a bad row as an Unreadable; empty lines are passed over.

    Raises Unreadable where the reading cannot go on: a quote that is not closed, a header that is none.
    """
    rows = filter(None, csv.reader(_lines(file), strict=True))
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if len(header) == 1 and re.search("[;\t|]", header[0]):
            raise Unreadable(f"the header is one column, {shown(header[0])}; the columns must be separated by commas")
        if HALF_PAIR.search("".join(header)):
            raise Unreadable(NOT_UTF8)
        yield from (_csv_row(header, cells) for cells in rows)
    except csv.Error as error:
        raise Unreadable(f"is not CSV ({error}); is a quote left open? Write a quote inside a cell twice") from None


def _csv_row(header: list[str], cells: list[str]) -> object:
    if HALF_PAIR.search("".join(cells)):
        return Unreadable(NOT_UTF8)
    if len(cells) != len(header):
        return Unreadable(
            f"has {len(cells)} cells where the header has {len(header)} ({shown(', '.join(header), 300)}); "
            "put a cell that holds a comma in quotes"
        )
    return JsonObject(zip(header, cells, strict=True))
