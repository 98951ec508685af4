"""From a dataset configuration to validated records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from config.schema import BadRow, DatasetConfig
from data.base import DataError, Edit
from data.fields import READING, RowReader, check_named_fields
from data.records import Fits, RecordFile, Survey, survey, too_few
from files import read_json, sha256_of, sha256_of_json, write_whole

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
        known = self._cache_file(records.path, needed)
        found = _read_survey(known) if known else None
        if found is None:
            found = survey(records, needed, self.fits, skip=self.skip)
            if known:
                _remember(known, json.dumps(asdict(found)))
        records.bad = found.bad
        if found.good:
            check_named_fields(records, self.cfg, records.path)
        return records, found

    def _cache_file(self, path: Path, needed: int) -> Path | None:
        """Where the survey of a large file is remembered, under everything that it depends on."""
        if not path.is_file() or path.stat().st_size < LARGE:
            return None
        reading = [asdict(self.cfg.fields), *(getattr(self.cfg, key) for key in READING)]
        drawn = self.seed if self.cfg.draw_rephrase else None
        return cache_file(self.cfg.cache_dir, path, "survey", [needed, self.skip, drawn, self.fits_key, reading])


LARGE = 16 * 2**20
"""Smaller files are surveyed and hashed anew by every run: it takes no time."""


def cache_file(cache_dir: str, path: Path, kind: str, key: list[object]) -> Path:
    """A cache entry's path, under the file's identity: place, size, time of change."""
    stat = path.stat()
    identity = sha256_of_json([kind, str(path.resolve()), stat.st_size, stat.st_mtime_ns, *key])
    return Path(cache_dir).expanduser() / f"{kind}-{identity[:32]}.json"


def file_hashes(cache_dir: str, *files: RecordFile | None) -> dict[str, str]:
    """sha256 of each record file; that of a large one is computed once while the file stays as it is."""
    hashes = {}
    for path in [file.path for file in files if file is not None]:
        known = cache_file(cache_dir, path, "sha256", []) if path.stat().st_size >= LARGE else None
        if known and known.is_file():
            hashes[str(path.resolve())] = known.read_text(encoding="utf-8")
            continue
        digest = hashes[str(path.resolve())] = sha256_of(path)
        if known:
            _remember(known, digest)
    return hashes


def _read_survey(path: Path) -> Survey | None:
    try:
        content = read_json(path)
        return Survey(content["good"], {int(row): message for row, message in content["bad"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remember(path: Path, content: str) -> None:
    """A cache is a help, not a need: a folder that cannot be written is no error."""
    with suppress(OSError):
        write_whole(path, content)
