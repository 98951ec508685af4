"""Record files validated row by row with the reader of a run, and what is found as a table."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from config.schema import DatasetConfig

from .base import DataError, Edit
from .fetch import published
from .fields import RowReader, check_named_fields
from .source import PROJECT, RecordFile, locate

T = TypeVar("T")
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

    def add(self, found: Edit | DataError) -> None:
        """Count a row; of the first bad ones keep what is wrong with them."""
        if isinstance(found, Edit):
            self.good += 1
            self.prompt_chars += len(found.prompt)
            self.answer_chars += len(found.answer)
            return
        self.bad += 1
        if len(self.first_bad) < SHOWN:
            self.first_bad.append(str(found).removeprefix(f"{self.path}: "))


def default_files(cfg: DatasetConfig, root: Path | None) -> tuple[list[Path], list[Path]]:
    """The files of a data set: those to check, and published ones that are not there.

    Of a published set that is whatever was fetched, of any other the files that its yaml names. They lie below
    `root`; None: where a run would look for them.
    """
    files = [file.below(root or PROJECT) for file in published(cfg.name)]
    if not files:
        return [root / path if root else locate(path) for path in (cfg.train_path, cfg.valid_path) if path], []
    return [path for path in files if path.exists()], [path for path in files if not path.exists()]


def check_file(path: Path, reader: RowReader, limit: int | None = None, seed: int = 0) -> Report:
    """Read the first `limit` rows (None: all) of a file; never raises for what is in it."""
    report, records = Report(path), RecordFile(path, reader, seed, limit, reader.cfg.how_to_get)
    # 8 bytes a prompt, not the prompts: two million of them must not fill the memory.
    prompts = array("q")
    try:
        for found in _progress(islice(records.attempts(), limit), path):
            report.add(found)
            if isinstance(found, Edit):
                prompts.append(hash(found.prompt))
        if report.good:
            good = (found for found in islice(records.attempts(), limit) if isinstance(found, Edit))
            check_named_fields(good, reader.cfg, path)
    except DataError as error:
        report.broken = str(error)
    report.duplicates = len(prompts) - np.unique(np.frombuffer(prompts, dtype=np.int64)).size
    return report


def _progress(rows: Iterable[T], path: Path) -> Iterator[T]:
    """`rows` with a bar if the file is large and someone is watching."""
    large = path.is_file() and path.stat().st_size > LARGE
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
    counts = (report.good + report.bad, report.good, report.bad)
    lengths = (report.prompt_chars / good, report.answer_chars / good)
    return (str(report.path), *map(str, counts), *(f"{mean:.1f}" for mean in lengths), str(report.duplicates))
