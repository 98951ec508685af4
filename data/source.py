"""From a dataset configuration to validated records."""

from __future__ import annotations

from pathlib import Path

from config.schema import DatasetConfig
from data.base import DataError
from data.records import RecordFile, require
from data.registry import HOW_TO_GET, READERS

PROJECT = Path(__file__).resolve().parent.parent


def locate(path: str) -> Path:
    """The path as given, or below the project's own folder where only that exists."""
    given = Path(path).expanduser()
    inside = PROJECT / given
    return inside if not given.exists() and inside.exists() else given


def open_records(cfg: DatasetConfig, path: str, seed: int, num_seq: int, num_seq_key: str) -> RecordFile:
    """The first num_seq x n_edits records of a file, each of them validated.

    Raises:
        DataError: unknown data set, missing or broken file, bad row, too few records.
    """
    if cfg.name not in READERS:
        raise DataError(f"dataset.name={cfg.name}: must be one of {', '.join(READERS)}")
    return require(
        locate(path),
        READERS[cfg.name],
        seed,
        num_seq * cfg.n_edits,
        num_seq_key=num_seq_key,
        num_seq=num_seq,
        n_edits=cfg.n_edits,
        how_to_get=HOW_TO_GET[cfg.name],
    )
