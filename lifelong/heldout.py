"""Records to tune on: such as a run with the same keys neither writes nor scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from config.schema import Config
from data.base import DataError, Edit
from data.fields import RowReader
from data.source import Fits, RecordFile, locate
from lifelong.setup import Data


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Edits to tune on, and the file that they are from."""

    edits: list[Edit]
    path: str


def held_out(cfg: Config, data: Data, fits: Fits, count: int) -> HeldOut:
    """`count` records of the edited file behind those that the run edits, else of the training file behind its warm-up.

    Rows that cannot be used are passed over, and so is a record that asks what the run edits or warms up with.

    Raises:
        DataError: neither file holds so many; says how many there are.
    """
    files, told = [data.edits], []
    if cfg.dataset.train_path:
        unread = RecordFile(locate(cfg.dataset.train_path), RowReader(cfg.dataset), cfg.seed, limit=0)
        files.append(data.training or unread)
    for file in files:
        # twice as many: what the run asks too is taken out below
        found = list(islice(behind(file, fits), 2 * count)) if file.path.is_file() else []
        prompts = {edit.prompt for edit in found}
        for used in filter(None, (data.edits, data.training)):
            prompts -= {edit.prompt for edit in used if edit.prompt in prompts}
        fresh = [edit for edit in found if edit.prompt in prompts][:count]
        if len(fresh) == count:
            # the objective asks for nothing else
            bare = [replace(edit, persona=None, mhop=None, mhop_answer=None) for edit in fresh]
            return HeldOut(bare, str(file.path))
        told.append(f"{file.path} holds {len(fresh)} behind the {len(file)} that a run reads")
    raise DataError(
        f"tune=true: {count} records are needed that a run does not edit (tune_edits={cfg.tune_edits}, whole steps of "
        f"dataset.n_edits={cfg.dataset.n_edits}), but {'; '.join(told)}; lower tune_edits or num_seq, or name another "
        "dataset.train_path"
    )


def behind(records: RecordFile, fits: Fits) -> Iterator[Edit]:
    """The good edits of a file behind those that `records` gives."""
    last = max((edit.row for edit in records), default=-1)
    whole = replace(records, limit=None, count=None, bad={})
    for found in whole.attempts():
        if isinstance(found, Edit) and found.row > last and fits([found])[0] is None:
            yield found
