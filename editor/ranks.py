"""Work that several processes can share, as one process does it; lifelong/ranks.py has the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.choices import TokenRows
from data.batches import Batch
from editor.capture import Captured, Inputs, capture_together
from editor.frozen import look_ahead
from editor.sites import EditSite

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Here:
    """What a process works with."""

    model: PreTrainedModel
    sites: Sequence[EditSite]
    inputs: Inputs
    tokenizer: PreTrainedTokenizerBase | None = None


Work = Callable[[Here, Any], Any]
"""Makes a result of an item with the weights as they are; a function of a module, or a partial of one."""


def captured_by(here: Here, group: Sequence[Batch], token: TokenRows) -> list[Captured]:
    """The rows of one pass."""
    return capture_together(here.model, here.sites, group, token, here.inputs)


def batches_of(items: Any) -> Iterator[Batch]:
    """The batches in items of work, alone or in lists and tuples."""
    if isinstance(items, Batch):
        yield items
    elif isinstance(items, (list, tuple)):
        for item in items:
            yield from batches_of(item)


class Ranks:
    """One process, which does everything itself."""

    def deal(self, here: Here, work: Callable[[Here, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """What `work` makes of each item, in their order; tensors on this process's devices or on the CPU."""
        every = list(items)
        look_ahead(here.inputs, batches_of(every))
        for item in every:
            yield work(here, item)

    def compare(self) -> None:
        """Make sure that every process holds the same weights."""


ALONE = Ranks()
