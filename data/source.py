"""From a dataset configuration to validated records."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from config.schema import BadRow, DatasetConfig
from data.base import DataError, ReadRow
from data.custom import check_named_fields
from data.records import Fits, RecordFile, Survey, survey, too_few
from data.registry import HOW_TO_GET, READERS, reader

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


def accept_all(edits: object) -> list[None]:
    """A check that every edit passes, for readers without a model."""
    return [None] * len(edits)  # type: ignore[arg-type]


class Source:
    """Opens the record files of one data set; `fits` is the model's word on each edit, `fits_key` names it."""

    def __init__(self, cfg: DatasetConfig, seed: int, fits: Fits = accept_all, fits_key: str = "") -> None:
        if cfg.name not in READERS:
            raise DataError(f"dataset.name={cfg.name}: must be one of {', '.join(READERS)}")
        self.cfg, self.seed, self.fits, self.fits_key = cfg, seed, fits, fits_key
        self.read_row: ReadRow = reader(cfg.name, cfg.fields)
        self.skip = cfg.on_bad_row is BadRow.skip

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
        return records.remember_length(needed)

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
        records.limit = found.good - found.good % n_edits
        return records.remember_length(records.limit)

    def _survey(self, path: str, needed: int) -> tuple[RecordFile, Survey]:
        records = RecordFile(locate(path), self.read_row, self.seed, needed, HOW_TO_GET[self.cfg.name])
        known = self._cache_file(records.path, needed)
        found = _read_survey(known) if known else None
        if found is None:
            found = survey(records, needed, self.fits, skip=self.skip)
            if known:
                _write_atomically(known, json.dumps(asdict(found)))
        records.bad = found.bad
        if self.cfg.name == "custom" and found.good:
            check_named_fields(records, self.cfg.fields, records.path)
        return records, found

    def _cache_file(self, path: Path, needed: int) -> Path | None:
        """Where the survey of a large file is remembered, under everything that it depends on."""
        if not path.is_file() or path.stat().st_size < LARGE:
            return None
        key = [self.cfg.name, needed, self.skip, self.fits_key, asdict(self.cfg.fields)]
        return cache_file(self.cfg.cache_dir, path, "survey", key)


LARGE = 16 * 2**20
"""Smaller files are surveyed and hashed anew by every run: it takes no time."""


def cache_file(cache_dir: str, path: Path, kind: str, key: list[object]) -> Path:
    """A cache entry's path, under the file's identity: place, size, time of change."""
    stat = path.stat()
    whole = json.dumps([kind, str(path.resolve()), stat.st_size, stat.st_mtime_ns, *key])
    return Path(cache_dir).expanduser() / f"{kind}-{hashlib.sha256(whole.encode()).hexdigest()[:32]}.json"


def file_hashes(cache_dir: str, *files: RecordFile | None) -> dict[str, str]:
    """sha256 of each record file; that of a large one is computed once while the file stays as it is."""
    hashes = {}
    for path in [file.path for file in files if file is not None]:
        known = cache_file(cache_dir, path, "sha256", []) if path.stat().st_size >= LARGE else None
        if known and known.is_file():
            hashes[str(path.resolve())] = known.read_text(encoding="utf-8")
            continue
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if known:
            _write_atomically(known, digest)
        hashes[str(path.resolve())] = digest
    return hashes


def _read_survey(path: Path) -> Survey | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Survey(content["good"], {int(row): message for row, message in content["bad"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_atomically(path: Path, content: str) -> None:
    """A cache is a help, not a need: a folder that cannot be written is no error."""
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(scratch, path)
    except OSError:
        if scratch:
            Path(scratch).unlink(missing_ok=True)
