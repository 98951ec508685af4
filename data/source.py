"""From a dataset configuration to validated records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from config.schema import BadRow, DatasetConfig
from data.base import DataError, Edit
from data.fields import READING, RowReader, check_named_fields
from data.records import Fits, RecordFile, Survey, survey, too_few
from files import read_json, sha256_of, sha256_of_json, write_json

PROJECT = Path(__file__).resolve().parent.parent


def locate(path: str) -> Path:
    """The path as given, or below the project's own folder where only that exists.

    Raises:
        DataError: the system cannot even look for it, such as a name that is too long.
    """
    try:
        given = Path(path).expanduser()
        inside = PROJECT / given
        return inside if not given.exists() and inside.exists() else given
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: cannot be looked for ({error}); it must be a record file's path") from None


def accept_all(edits: Sequence[Edit]) -> list[DataError | None]:
    """A check that every edit passes, for readers without a model."""
    return [None] * len(edits)


class Source:
    """Opens the record files of one data set; `fits` is the model's word on each edit, `fits_key` names it."""

    def __init__(self, cfg: DatasetConfig, seed: int, fits: Fits = accept_all, fits_key: str = "") -> None:
        self.cfg, self.seed, self.fits, self.fits_key = cfg, seed, fits, fits_key
        self.skip = cfg.on_bad_row is BadRow.skip

    def open(self, path: str, limit: int | None = None) -> RecordFile:
        """The first `limit` records of a file (None: all), not looked at yet."""
        return RecordFile(locate(path), RowReader(self.cfg), self.seed, limit, self.cfg.how_to_get)

    def records(self, path: str, num_seq: int, num_seq_key: str) -> RecordFile:
        """The first num_seq x n_edits good records of a file.

        Raises:
            DataError: missing or broken file, bad row, too few records.
        """
        needed = num_seq * self.cfg.n_edits
        records, found = self._survey(path, needed)
        if found.good < needed:
            raise too_few(
                records.path, found.good, needed, num_seq_key=num_seq_key, num_seq=num_seq, n_edits=self.cfg.n_edits
            )
        records.count = needed
        return records

    def training(self, num_seq: int) -> RecordFile:
        """Training records for learned editors: whole steps, num_seq of them or as many as the file holds.

        Raises:
            DataError: as records; too few records for a single step.
        """
        n_edits = self.cfg.n_edits
        assert self.cfg.train_path is not None
        records, found = self._survey(self.cfg.train_path, num_seq * n_edits)
        if found.good < n_edits:
            raise DataError(
                f"{records.path}: holds {found.good} records, fewer than one step of dataset.n_edits={n_edits}"
            )
        records.limit = records.count = found.good - found.good % n_edits
        return records

    def _survey(self, path: str, needed: int) -> tuple[RecordFile, Survey]:
        records = self.open(path, needed)
        drawn = self.seed if self.cfg.draw_rephrase else None
        reading = [asdict(self.cfg.fields), *(getattr(self.cfg, key) for key in READING)]
        key = [needed, self.skip, drawn, self.fits_key, reading]

        def look() -> dict[str, Any]:
            return asdict(survey(records, needed, self.fits, skip=self.skip))

        known = remembered(look, self.cfg.cache_dir, records.path, "survey", key)
        found = Survey(known["good"], {int(row): message for row, message in known["bad"].items()})
        records.bad = found.bad
        if found.good:
            check_named_fields(records, self.cfg, records.path)
        return records, found


LARGE = 16 * 2**20
"""Smaller files are surveyed and hashed anew by every run: it takes no time."""


def remembered(find_out: Callable[[], Any], cache_dir: str, path: Path, kind: str, key: Sequence[object] = ()) -> Any:
    """What `find_out` says of a file, as JSON holds it; of a large one it is asked once while the file stays as it is.

    `key` is what else the answer depends on. A cache is a help, not a need: one that cannot be read or
    written is no error.
    """
    if not path.is_file() or path.stat().st_size < LARGE:
        return find_out()
    stat = path.stat()
    identity = sha256_of_json([kind, str(path.resolve()), stat.st_size, stat.st_mtime_ns, *key])
    known = Path(cache_dir).expanduser() / f"{kind}-{identity[:32]}.json"
    with suppress(OSError, ValueError):
        return read_json(known)
    found = find_out()
    with suppress(OSError):
        write_json(known, found)
    return found


def file_hashes(cache_dir: str, *files: RecordFile | None) -> dict[str, str]:
    """sha256 of each record file."""
    paths = [file.path for file in files if file is not None]
    return {str(path.resolve()): remembered(partial(sha256_of, path), cache_dir, path, "sha256") for path in paths}
