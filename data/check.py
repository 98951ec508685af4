"""Record files validated row by row with their own reader, and what is found as a table."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from config.schema import FieldsConfig

from . import knowns
from .base import DataError
from .manifest import published
from .registry import FACTS_FILES, HOW_TO_GET, READERS, reader
from .stream import scan

ReadAny = Callable[[dict[str, Any], int, int], Any]

CHECKERS: dict[str, ReadAny] = {**READERS, "knowns": knowns.read_row}
SHOWN = 20
LARGE = 4 << 20
"""Bytes from which a file gets a progress bar."""


@dataclass(slots=True)
class Report:
    """What a check found in one file. Lengths are sums, in characters; `broken` is why reading stopped."""

    path: Path
    good: int = 0
    bad: int = 0
    first_bad: list[str] = field(default_factory=list)
    prompt_chars: int = 0
    answer_chars: int = 0
    duplicates: int = 0
    broken: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every row was read and good."""
        return self.bad == 0 and self.broken is None


def default_files(dataset: str, root: Path) -> tuple[list[Path], list[Path]]:
    """The files of a data set under `root`: those to check, and published ones that are not there.

    The two files of `facts` are always to be checked; of a published set, whatever was fetched.
    """
    if dataset == "facts":
        return [root / name for name in FACTS_FILES], []
    paths = [file.below(root) for file in published(dataset)]
    present = [path for path in paths if path.exists()]
    return present, [path for path in paths if path not in present]


def check_file(
    path: Path, dataset: str, limit: int | None = None, seed: int = 0, fields: FieldsConfig | None = None
) -> Report:
    """Read the first `limit` rows (None: all) of a file as `dataset`; never raises for what is in it."""
    read_row = CHECKERS[dataset] if fields is None else reader(dataset, fields)
    report = Report(path)
    # 8 bytes a prompt, not the prompts: two million of them must not fill the memory.
    prompts = array("q")
    try:
        with closing(scan(path, HOW_TO_GET[dataset])) as rows:
            for index, row in enumerate(_progress(islice(rows, limit), path)):
                _check_row(report, prompts, row, read_row, index, seed)
    except DataError as error:
        report.broken = str(error)
    report.duplicates = len(prompts) - np.unique(np.frombuffer(prompts, dtype=np.int64)).size
    return report


def _check_row(
    report: Report, prompts: array[int], row: dict[str, Any] | DataError, read_row: ReadAny, index: int, seed: int
) -> None:
    """Add one row to the report."""
    try:
        if isinstance(row, DataError):
            raise row
        record = read_row(row, index, seed)
    except DataError as error:
        report.bad += 1
        if len(report.first_bad) < SHOWN:
            report.first_bad.append(str(error).removeprefix(f"{report.path}: "))
        return
    report.good += 1
    report.prompt_chars += len(record.prompt)
    report.answer_chars += len(record.answer)
    prompts.append(hash(record.prompt))


def _progress(rows: Iterator[Any], path: Path) -> Iterator[Any]:
    """`rows` with a bar if the file is large and someone is watching."""
    large = path.is_file() and os.path.getsize(path) > LARGE
    return iter(tqdm(rows, desc=path.name, unit=" rows", disable=None if large else True))


def table(reports: Sequence[Report]) -> str:
    """The reports as a table, a line a file, then what is wrong in each."""
    head = ("file", "rows", "good", "bad", "prompt chars", "answer chars", "duplicate prompts")
    cells = [head, *(_cells(report) for report in reports)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    for report in reports:
        if report.bad:
            lines += ["", f"{report.path}: {report.bad} bad rows, the first {len(report.first_bad)}:"]
            lines += [f"  {message}" for message in report.first_bad]
        if report.broken:
            lines += ["", f"broken: {report.broken}"]
    return "\n".join(lines)


def _cells(report: Report) -> tuple[str, ...]:
    good = max(report.good, 1)
    return (
        str(report.path),
        str(report.good + report.bad),
        str(report.good),
        str(report.bad),
        f"{report.prompt_chars / good:.1f}",
        f"{report.answer_chars / good:.1f}",
        str(report.duplicates),
    )
