"""A record file as edits: streamed, counted, and checked to be long enough before a run starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from .base import DataError, Edit, ReadRow
from .stream import iter_rows


class RecordFile:
    """The edits of a record file, or its first `limit`; may be iterated again and again.

    `read_row` makes a row an edit (`data.registry.READERS`), `seed` is what its draws start from,
    `how_to_get` the command to name if the file is not there. Raises ValueError for a negative limit;
    iterating and counting raise DataError, naming path and row.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        read_row: ReadRow,
        seed: int,
        limit: int | None = None,
        how_to_get: str = "",
    ) -> None:
        if limit is not None and limit < 0:
            raise ValueError(f"limit is {limit}; it must be None (all edits) or at least 0")
        self.path = Path(path)
        self.read_row = read_row
        self.seed = seed
        self.limit = limit
        self.how_to_get = how_to_get
        self._count: int | None = None

    def __iter__(self) -> Iterator[Edit]:
        rows = iter_rows(self.path, self.how_to_get)
        for index, row in enumerate(islice(rows, self.limit)):
            try:
                edit = self.read_row(row, index, self.seed)
            except DataError as error:
                raise DataError(f"{self.path}: {error}") from None
            yield edit

    def __len__(self) -> int:
        """The number of edits, at most `limit`; read through at the first call, then remembered."""
        if self._count is None:
            self._count = sum(1 for _ in islice(iter_rows(self.path, self.how_to_get), self.limit))
        return self._count


def require(
    records_path: str | os.PathLike[str],
    read_row: ReadRow,
    seed: int,
    needed: int,
    *,
    num_seq_key: str,
    num_seq: int,
    n_edits: int,
    how_to_get: str = "",
) -> RecordFile:
    """The first `needed` = num_seq x n_edits edits of a file, all of them validated in one streaming pass.

    `num_seq_key` is the configuration key that `num_seq` came from. Raises DataError for a bad row, and for
    too few rows, naming file, records, the product asked for, and the largest `num_seq` that fits.
    """
    records = RecordFile(records_path, read_row, seed, needed, how_to_get)
    found = sum(1 for _ in records)
    if found == needed:
        return records
    fits = found // n_edits
    advice = (
        f"set {num_seq_key} to {fits} or less"
        if fits
        else f"n_edits is too large: it must be {found} or less"
        if found
        else "fetch or build the file again"
    )
    raise DataError(
        f"{records.path}: holds {found} records, but {num_seq_key} x n_edits = {num_seq} x {n_edits} ="
        f" {needed} are needed; {advice}"
    )
