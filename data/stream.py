"""Record files read row by row: `.json` (one array), `.jsonl` (an object a line), `.csv` (with a header).

Each also as `.xz` or `.gz`. No more than a chunk of the file is ever held, and nothing is read past
what the consumer asks for.
"""

from __future__ import annotations

import codecs
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .base import DataError, place, shown
from .parse import CHUNK, JsonObject, Unreadable, array_values, csv_values, line_values

OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
FORMATS = ".json, .jsonl or .csv, alone or compressed as .xz or .gz"
VALUES: dict[str, Callable[[BinaryIO], Iterator[object]]] = {
    ".json": array_values,
    ".jsonl": line_values,
    ".csv": csv_values,
}


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
    index = 0
    with _open(path, how_to_get) as file:
        kind = _kind(path)
        _check_start(path, file, kind)
        try:
            for value in VALUES[kind](file):
                yield _object(path, index, value)
                index += 1
        except EOFError:
            raise DataError(
                f"{path}: {place(index)}: its compressed data ends too soon; the file is cut short, fetch it again"
            ) from None
        except Unreadable as error:
            raise DataError(f"{path}: {place(index)}: {error}") from None
        except (OSError, lzma.LZMAError, zlib.error) as error:
            raise DataError(f"{path}: {place(index)}: cannot be read ({error}); fetch the file again") from None


def _object(path: Path, index: int, value: object) -> dict[str, Any] | DataError:
    """`value` as a row, or the error that says why it is none."""
    if isinstance(value, Unreadable):
        return DataError(f"{path}: {place(index)}: {value}")
    if not isinstance(value, JsonObject):
        return DataError(f"{path}: {place(index)} is {shown(value)}; it must be an object of named fields")
    if value.duplicate is not None:
        return DataError(
            f"{path}: {place(index)}: field {value.duplicate!r} is there twice (the last is"
            f" {shown(value[value.duplicate])}); a row must name a field once"
        )
    return value


def _kind(path: Path) -> str:
    """'.json', '.jsonl' or '.csv', by the file's name. Raises DataError for any other."""
    suffixes = [s.lower() for s in path.suffixes]
    kind = suffixes[-2:-1] if suffixes[-1:] in ([".xz"], [".gz"]) else suffixes[-1:]
    if not kind or kind[0] not in VALUES:
        raise DataError(f"{path}: the name of a record file must end in {FORMATS}")
    return kind[0]


def _open(path: Path, how_to_get: str) -> BinaryIO:
    """The file's bytes, decompressed. Raises DataError if there is nothing to read."""
    if path.is_dir():
        raise DataError(f"{path}: is a directory; name the record file inside it ({FORMATS})")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: is empty (0 bytes); fetch it again")
        return OPENERS.get(path.suffix.lower(), open)(path, "rb")
    except FileNotFoundError:
        here = "" if path.is_absolute() else f" in {Path.cwd()}"
        get = f"; get it with: {how_to_get}" if how_to_get else "; check the path"
        raise DataError(f"{path}: no such file{here}{get}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); it must be a readable file") from None


def _check_start(path: Path, file: BinaryIO, kind: str) -> None:
    """Tell by its first bytes a file that is of another kind. Leaves `file` at its start, behind a byte order mark."""
    try:
        head = file.read(CHUNK)
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    except EOFError:
        return  # cut short: the reading proper says so
    except (OSError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: is no {path.suffix} file ({error}); fetch it again") from None
    start = shown(head[:20].decode("utf-8", "replace"))
    if not head:
        raise DataError(f"{path}: is empty but for white space; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: is a Git LFS pointer, not the file it stands for; fetch the file itself")
    if kind == ".json" and head.startswith(b"{"):
        raise DataError(
            f"{path}: is JSON but no array (starts with {start}); it must be one array of objects:"
            " [{...}, ...] (a file with one object a line is named .jsonl)"
        )
    if kind == ".json" and not head.startswith(b"["):
        raise DataError(f"{path}: is no JSON array (starts with {start}); it must be one array: [{{...}}, ...]")
    if kind == ".jsonl" and head.startswith(b"["):
        raise DataError(f"{path}: starts with '['; a .jsonl file has one object a line (an array is named .json)")
