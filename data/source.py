"""From a dataset configuration to validated records: surveyed once before a run starts, read as often as needed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from config.schema import BadRow, DatasetConfig
from files import read_json, sha256_of, sha256_of_json, write_json

from .base import DataError, Edit, place
from .fields import RowReader, check_named_fields
from .parts import parts, without_mhop
from .stream import scan

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parent.parent
CHUNK = 512
LARGE = 16 * 2**20
"""Smaller files are surveyed and hashed anew by every run: it takes no time."""
UNUSABLE = (OSError, ValueError, RuntimeError)
"""What a cache raises that cannot be read or written; RuntimeError where there is no home folder."""

Fits = Callable[[Sequence[Edit]], list[DataError | None]]
"""Whether a model can use edits: an error in the place of each one that it cannot."""


def locate(path: str) -> Path:
    """The path as given, or below the project's own folder where only that exists.

    Raises DataError where the system cannot even look for it, such as for a name that is too long.
    """
    try:
        given = Path(path).expanduser()
        inside = PROJECT / given
        return inside if not given.exists() and inside.exists() else given
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: cannot be looked for ({error}); it must be a record file's path") from None


@dataclass(eq=False)
class RecordFile:
    """The edits of a record file, or its first `limit` good ones; may be iterated again and again.

    `seed` is what the reader's draws start from, `bad` the rows to pass over with what is wrong, `count` the number
    of edits where it is known, `first` how many rows at the start are another's (both count from there).
    Iterating and counting raise DataError, naming path and row.
    """

    path: Path
    read_row: RowReader
    seed: int
    limit: int | None = None
    bad: dict[int, str] = field(default_factory=dict)
    count: int | None = None
    first: int = 0

    def __iter__(self) -> Iterator[Edit]:
        kept = (found for index, found in enumerate(self.attempts()) if index not in self.bad)
        for found in islice(kept, self.limit):
            if isinstance(found, DataError):
                raise found
            yield found

    def attempts(self) -> Iterator[Edit | DataError]:
        """Every row of the file from `first` on: an edit, or what is wrong with it."""
        return islice(self._rows(), self.first, None)

    def _rows(self) -> Iterator[Edit | DataError]:
        for index, row in enumerate(scan(self.path, self.read_row.cfg.how_to_get)):
            if isinstance(row, DataError):
                yield row
                continue
            for part, last in parts(row, self.read_row.cfg.each):
                try:
                    edit = self.read_row(part, index, self.seed)
                    yield edit if last else without_mhop(edit)
                except DataError as error:
                    yield DataError(f"{self.path}: {error}")

    def __len__(self) -> int:
        """The number of edits, at most `limit`; read through at the first call, then remembered."""
        if self.count is None:
            self.count = sum(1 for _ in self)
        return self.count


def survey(records: RecordFile, needed: int, fits: Fits, *, skip: bool) -> tuple[int, dict[int, str]]:
    """Validate rows in one streaming pass until `needed` good ones are found, or the file ends.

    Gives the number of good rows, and the bad ones by position, with what is wrong. Raises DataError
    at the first bad row, unless `skip`; where reading cannot go on, in any case.
    """
    good, stream = 0, records.attempts()
    bad: dict[int, str] = {}
    while good < needed and (chunk := list(islice(stream, min(CHUNK, needed - good)))):
        complaints = iter(fits([found for found in chunk if isinstance(found, Edit)]))
        for found in chunk:
            error = next(complaints) if isinstance(found, Edit) else found
            if error is None:
                good += 1
            elif skip:
                bad[good + len(bad)] = str(error)
            else:
                raise DataError(f"{records.path}: {error}") if isinstance(found, Edit) else error
    return good, bad


def accept_all(edits: Sequence[Edit]) -> list[DataError | None]:
    """A check that every edit passes, for readers without a model."""
    return [None] * len(edits)


def with_all_prompts(fits: Fits, editor: str) -> Fits:
    """`fits` for records that a learned editor trains on: they need a rephrased and an unrelated prompt too."""

    def lacking(edit: Edit) -> DataError | None:
        key = next((key for key in ("rephrase", "unrelated") if getattr(edit, key) is None), None)
        said = f"{place(edit.row)}: has no {key} prompt, which editor={editor} trains on"
        return DataError(f"{said}; set dataset.fields.{key} to the field that holds it") if key else None

    def check(edits: Sequence[Edit]) -> list[DataError | None]:
        return [lacking(edit) or error for edit, error in zip(edits, fits(edits), strict=True)]

    return check


class Source:
    """Opens the record files of one data set; `fits` is the model's word on each edit, `fits_key` names it."""

    def __init__(self, cfg: DatasetConfig, seed: int, fits: Fits = accept_all, fits_key: str = "") -> None:
        self.cfg, self.seed, self.fits, self.fits_key = cfg, seed, fits, fits_key

    def records(self, path: str, num_seq: int, num_seq_key: str, first: int = 0) -> RecordFile:
        """The first num_seq x n_edits good records of a file, behind its `first` rows.

        Raises DataError for a missing or broken file, a bad row, too few records.
        """
        n_edits, needed = self.cfg.n_edits, num_seq * self.cfg.n_edits
        records = self._surveyed(path, needed, first)
        found = len(records)
        if found == needed:
            return records
        if found >= n_edits:
            advice = f"set {num_seq_key} to {found // n_edits} or less"
        else:
            advice = f"n_edits is too large: it must be {found} or less" if found else "fetch or build the file again"
        if found and num_seq_key == "num_seq":
            advice += f" (all of them: num_seq=null; all of them in one step: num_seq=1 dataset.n_edits={found})"
        raise DataError(
            f"{records.path}: holds {found} records{_behind(first)}, but {num_seq_key} x n_edits = "
            f"{num_seq} x {n_edits} = {needed}"
            f" are needed; {advice}"
        )

    def edits(self, num_seq: int | None) -> RecordFile:
        """The records that are edited: num_seq steps of them, or all where it is null; no more than dataset.limit.

        Raises DataError as records does.
        """
        cfg, most = self.cfg, self.cfg.limit or sys.maxsize
        if num_seq is not None and num_seq * cfg.n_edits <= most:
            return self.records(cfg.valid_path, num_seq, "num_seq")
        records = self._surveyed(cfg.valid_path, most)
        if not len(records):
            raise DataError(f"{records.path}: holds no record that can be edited; there must be one at least")
        return records

    def training(self, num_seq: int, first: int = 0) -> RecordFile:
        """Training records for learned editors: whole steps, num_seq of them or as many as the file holds.

        They stand behind the `first` rows of the file.

        Raises DataError as records does, and for too few records for a single step.
        """
        n_edits = self.cfg.n_edits
        assert self.cfg.train_path is not None
        records = self._surveyed(self.cfg.train_path, num_seq * n_edits, first)
        found = len(records)
        if found < n_edits:
            few = f"{found} records{_behind(first)}"
            raise DataError(f"{records.path}: holds {few}, fewer than one step of dataset.n_edits={n_edits}")
        records.limit = records.count = found - found % n_edits
        return records

    def _surveyed(self, path: str, needed: int, first: int = 0) -> RecordFile:
        """The first `needed` good records of a file behind its `first` rows, or all it has."""
        cfg, records = self.cfg, RecordFile(locate(path), RowReader(self.cfg), self.seed, first=first)
        skip = cfg.on_bad_row is BadRow.skip
        drawn = self.seed if cfg.draw_rephrase else None
        look = partial(survey, records, needed, self.fits, skip=skip)
        key = [asdict(cfg), needed, drawn, self.fits_key, *([first] if first else [])]
        records.limit, bad = remembered(look, cfg.cache_dir, records.path, "survey", key)
        records.count = records.limit
        # JSON has no other keys than strings
        records.bad = {int(row): message for row, message in bad.items()}
        if records.count:
            check_named_fields(records, cfg, records.path)
        return records


def rows_edited(edits: RecordFile, path: str) -> int:
    """How many rows of a training file are passed over: those that are edited, where both are one file."""
    return len(edits) + len(edits.bad) if os.path.realpath(locate(path)) == os.path.realpath(edits.path) else 0


def _behind(first: int) -> str:
    return f" behind the {first} that are edited" if first else ""


def remembered(find_out: Callable[[], Any], cache_dir: str, path: Path, kind: str, key: Sequence[object] = ()) -> Any:
    """What `find_out` says of a file, as JSON holds it; of a large one it is asked once while the file stays as it is.

    `key` is what else the answer depends on. A cache is a help, not a need: one that cannot be read or
    written is no error, but a line in the log.
    """
    if not path.is_file() or path.stat().st_size < LARGE:
        return find_out()
    stat = path.stat()
    # the time of a change of content can be set back, as cp -p and touch do; that of a change of the inode cannot
    times = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    name = f"{kind}-{sha256_of_json([kind, str(path.resolve()), stat.st_size, *times, *key])[:32]}.json"
    with suppress(*UNUSABLE):
        return read_json(Path(cache_dir).expanduser() / name)
    found = find_out()
    try:
        write_json(Path(cache_dir).expanduser() / name, found)
    except UNUSABLE as error:
        log.warning("dataset.cache_dir=%s: cannot be written (%s): every run reads %s anew", cache_dir, error, path)
    return found


def file_hashes(cache_dir: str, *files: RecordFile | None) -> dict[str, str]:
    """sha256 of each record file."""
    paths = [file.path for file in files if file is not None]
    return {str(path.resolve()): remembered(partial(sha256_of, path), cache_dir, path, "sha256") for path in paths}
