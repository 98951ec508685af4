"""A record file as edits: streamed, surveyed once before a run starts, and read again as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from .base import DataError, Edit, ReadRow, place
from .stream import scan

Fits = Callable[[Sequence[Edit]], list[DataError | None]]
"""Whether a model can use edits: an error in the place of each one that it cannot."""

CHUNK = 512


@dataclass(frozen=True, slots=True)
class Survey:
    """What reading a file once has shown: good records, and the bad ones by position, with what is wrong."""

    good: int
    bad: dict[int, str]


@dataclass(eq=False)
class RecordFile:
    """The edits of a record file, or its first `limit` good ones; may be iterated again and again.

    `read_row` makes a row an edit (`data.fields.RowReader`), `seed` is what its draws start from,
    `how_to_get` the command to name if the file is not there, `bad` the rows to pass over, `count` the
    number of edits where it is known. Raises ValueError for a negative limit; iterating and counting raise
    DataError, naming path and row.
    """

    path: Path
    read_row: ReadRow
    seed: int
    limit: int | None = None
    how_to_get: str = ""
    bad: dict[int, str] = field(default_factory=dict)
    count: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"limit is {self.limit}; it must be None (all edits) or at least 0")

    def __iter__(self) -> Iterator[Edit]:
        return islice(self._edits(), self.limit)

    def _edits(self) -> Iterator[Edit]:
        for index, found in enumerate(self.attempts()):
            if index in self.bad:
                continue
            if isinstance(found, DataError):
                raise found
            yield found

    def attempts(self) -> Iterator[Edit | DataError]:
        """Every row of the file: an edit, or what is wrong with it."""
        index = 0
        try:
            for index, row in enumerate(scan(self.path, self.how_to_get)):
                yield row if isinstance(row, DataError) else self._attempt(row, index)
                index += 1  # where the next row could not even be read
        except UnicodeDecodeError:  # the array parser's word for an escape such as \ud800 that stands alone
            raise DataError(
                f"{self.path}: {place(index)}: holds half a surrogate pair; the file must be Unicode text"
            ) from None

    def _attempt(self, row: dict[str, Any], index: int) -> Edit | DataError:
        try:
            return self.read_row(row, index, self.seed)
        except DataError as error:
            return DataError(f"{self.path}: {error}")

    def __len__(self) -> int:
        """The number of edits, at most `limit`; read through at the first call, then remembered."""
        if self.count is None:
            self.count = sum(1 for _ in self)
        return self.count


def survey(records: RecordFile, needed: int, fits: Fits, *, skip: bool) -> Survey:
    """Validate rows in one streaming pass until `needed` good ones are found, or the file ends.

    Raises:
        DataError: at the first bad row, unless `skip`; where reading cannot go on, in any case.
    """
    good, bad, index = 0, {}, 0
    stream = records.attempts()
    while good < needed and (chunk := list(islice(stream, min(CHUNK, needed - good)))):
        complaints = iter(fits([found for found in chunk if not isinstance(found, DataError)]))
        for found in chunk:
            error = found if isinstance(found, DataError) else next(complaints)
            if error is None:
                good += 1
            elif skip:
                bad[index] = str(error)
            else:
                raise error if isinstance(found, DataError) else DataError(f"{records.path}: {error}")
            index += 1
    return Survey(good, bad)


def with_all_prompts(fits: Fits, editor: str) -> Fits:
    """`fits` for records that a learned editor trains on: they need a rephrased and an unrelated prompt too."""

    def check(edits: Sequence[Edit]) -> list[DataError | None]:
        return [lacking(edit) or found for edit, found in zip(edits, fits(edits), strict=True)]

    def lacking(edit: Edit) -> DataError | None:
        for key in ("rephrase", "unrelated"):
            if getattr(edit, key) is None:
                return DataError(
                    f"{place(edit.row)}: has no {key} prompt, which editor={editor} trains on; "
                    f"set dataset.fields.{key} to the field that holds it"
                )
        return None

    return check


def too_few(path: Path, found: int, needed: int, *, num_seq_key: str, num_seq: int, n_edits: int) -> DataError:
    """The error for a file that is too short: both numbers, and the largest num_seq that fits."""
    fits = found // n_edits
    advice = (
        f"set {num_seq_key} to {fits} or less"
        if fits
        else f"n_edits is too large: it must be {found} or less"
        if found
        else "fetch or build the file again"
    )
    if found and num_seq_key == "num_seq":
        advice += f" (all of them in one step: num_seq=1 dataset.n_edits={found})"
    return DataError(
        f"{path}: holds {found} records, but {num_seq_key} x n_edits = {num_seq} x {n_edits} = {needed}"
        f" are needed; {advice}"
    )
