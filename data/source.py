"""From a dataset configuration to validated records."""

from __future__ import annotations

from pathlib import Path

from config.schema import DatasetConfig
from data.base import DataError, ReadRow
from data.records import RecordFile, require
from data.registry import HOW_TO_GET, READERS

PROJECT = Path(__file__).resolve().parent.parent


def locate(path: str) -> Path:
    """The path as given, or below the project's own folder where only that exists."""
    given = Path(path).expanduser()
    inside = PROJECT / given
    return inside if not given.exists() and inside.exists() else given


def _reader(cfg: DatasetConfig) -> ReadRow:
    if cfg.name not in READERS:
        raise DataError(f"dataset.name={cfg.name}: must be one of {', '.join(READERS)}")
    return READERS[cfg.name]


def open_training(cfg: DatasetConfig, seed: int, num_seq: int) -> RecordFile:
    """Training records for learned editors: whole steps, num_seq of them or as many as the file holds.

    Raises:
        DataError: as open_records; too few records for a single step.
    """
    wanted = num_seq * cfg.n_edits
    path, how = locate(cfg.train_path), HOW_TO_GET.get(cfg.name, "")
    found = sum(1 for _ in RecordFile(path, _reader(cfg), seed, wanted, how))
    if found < cfg.n_edits:
        raise DataError(
            f"dataset.train_path={path}: holds {found} records, fewer than one step of dataset.n_edits={cfg.n_edits}"
        )
    return RecordFile(path, _reader(cfg), seed, found - found % cfg.n_edits, how)


def open_records(cfg: DatasetConfig, path: str, seed: int, num_seq: int, num_seq_key: str) -> RecordFile:
    """The first num_seq x n_edits records of a file, each of them validated.

    Raises:
        DataError: unknown data set, missing or broken file, bad row, too few records.
    """
    return require(
        locate(path),
        _reader(cfg),
        seed,
        num_seq * cfg.n_edits,
        num_seq_key=num_seq_key,
        num_seq=num_seq,
        n_edits=cfg.n_edits,
        how_to_get=HOW_TO_GET[cfg.name],
    )
