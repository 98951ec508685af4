"""A panel, as surveys have it: texts that are asked again and again while a model is edited, a share at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from data.batches import Batch, Tokens, join, micro_batches, passes

TURNS = 10
"""Shares that the texts are asked in, one after the other."""
TOGETHER = 16
"""Sequences of about one length that are padded together."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Texts with labels, by kind."""

    kinds: list[list[Tokens]]

    @classmethod
    def of(cls, kinds: Iterable[Iterable[Batch]]) -> Panel:
        """Of batches by kind; a kind without any is left out."""
        found = ([row for batch in kind for row in unpadded(batch)] for kind in kinds)
        return cls([rows for rows in found if rows])

    def batches(self, tokens: int, turn: int | None = None) -> list[list[Batch]]:
        """By kind, batches of at most so many padded tokens: of all texts, or of those whose turn it is."""
        shares = self.kinds if turn is None else [share(rows, turn) for rows in self.kinds]
        cut = [micro_batches(rows, TOGETHER) for rows in shares]
        return [[join(group) for group in passes(kind, tokens)] for kind in cut]

    def state_tensors(self) -> dict[str, Tensor]:
        """Lengths [R] of each kind's sequences, and their inputs and labels one after the other [2, tokens]."""
        found = {}
        for kind, rows in enumerate(self.kinds):
            found[f"panel/{kind}/lengths"] = torch.tensor([len(row.input_ids) for row in rows])
            sides = [[token for row in rows for token in getattr(row, side)] for side in ("input_ids", "labels")]
            found[f"panel/{kind}/tokens"] = torch.tensor(sides)
        return found

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Panel | None:
        """What state_tensors gave; None where there was none."""
        kinds: list[list[Tokens]] = []
        for kind in count():
            if f"panel/{kind}/lengths" not in tensors:
                return cls(kinds) if kinds else None
            lengths = tensors[f"panel/{kind}/lengths"].tolist()
            ids, labels = (side.split(lengths) for side in tensors[f"panel/{kind}/tokens"].cpu())
            kinds.append([Tokens(a.tolist(), b.tolist()) for a, b in zip(ids, labels, strict=True)])
        raise AssertionError


def share(rows: Sequence[Tokens], turn: int) -> Sequence[Tokens]:
    """Those whose turn it is; never none."""
    turns = min(TURNS, len(rows))
    return rows[turn % turns :: turns]


def unpadded(batch: Batch) -> list[Tokens]:
    """Its sequences."""
    sides = zip(batch.input_ids_BT.tolist(), batch.labels_BT.tolist(), batch.attention_BT.sum(1).tolist(), strict=True)
    return [Tokens(ids[:length], labels[:length]) for ids, labels, length in sides]
