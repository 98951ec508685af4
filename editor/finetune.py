"""Plain fine-tuning as a reference: Adam on the sites' weights, epoch by epoch over mini-batches of edits.

After LocFT-BF, fine-tuning of one matrix breadth first (every epoch passes over all edits), with its step size,
batches, epochs and floor: mean cross-entropy of the answer's tokens and of the end of text behind them; a batch whose
loss is below the floor is passed over, and an epoch that passes over all ends the training. Adam starts anew at each
step. With `over: all` a step trains on all edits so far, from the weights as they are; one step of all edits is
offline training.

Shape suffixes: B sequences, T positions, K = d_k, V = d_v.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from config.choices import Over
from config.editors import FinetuneConfig
from data.batches import IGNORED, Batch, StepBatches, Tokens, join, pad, passes
from editor.base import AnyEditor, StepReport
from editor.capture import weight_gradients
from editor.frozen import look_ahead
from editor.registry import register
from editor.ridge import Shift
from editor.sites import EditSite
from editor.stopwatch import Stopwatch
from nets import NumericsError

SEEN = "seen/lengths", "seen/input_ids", "seen/labels"


@register("finetune", config=FinetuneConfig)
class Finetune(AnyEditor):
    """Trains float32 copies of the sites' weights and writes by how much they moved."""

    cfg: FinetuneConfig

    def __init__(self, *args: Any, **more: Any) -> None:
        """As AnyEditor."""
        super().__init__(*args, **more)
        self.end = end_of_text(self.model)
        self.seen: list[Tokens] = []
        """The edits that the next step trains on beside its own."""

    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """Train, and write the difference; the report's loss is that of the first epoch."""
        watch, own = Stopwatch(self.model.device), rows_of(batches.edit, self.end)
        rows, before = [*self.seen, *own], self.snapshot()
        try:
            with watch("train"):
                loss, shifts = self._train(rows)
            self.check_shifts(shifts)
        finally:
            self.restore(before)
        with watch("write"):
            records = self.write(shifts)
        if self.cfg.over is Over.all:
            self.seen = rows
        tokens = sum(int((batch.labels_BT != IGNORED).sum()) for batch in batches.edit)
        return StepReport(loss, tokens, records, {}, dict(watch.seconds))

    def _train(self, rows: Sequence[Tokens]) -> tuple[float, list[Shift]]:
        starts = [_oriented(site, site.weight if site.master is None else site.master).float() for site in self.sites]
        weights = [start_KV.clone(memory_format=torch.contiguous_format) for start_KV in starts]
        starts = [start_KV.clone() for start_KV in starts]
        adam, first = torch.optim.Adam(weights, lr=self.cfg.lr), list[float]()
        batches = [self._parts(rows[at : at + self.cfg.batch]) for at in range(0, len(rows), self.cfg.batch)]
        look_ahead(self.inputs, chain.from_iterable(batches))
        for epoch in range(self.cfg.epochs):
            losses = [self._update(parts, weights, adam) for parts in batches]
            first = losses if epoch == 0 else first
            if all(loss < self.cfg.floor for loss in losses):
                break
        shifts = [Shift(None, (end - start).to(self.solve_device)) for end, start in zip(weights, starts, strict=True)]
        return sum(first) / len(first), shifts

    def _update(self, parts: Sequence[Batch], weights: Sequence[Tensor], adam: torch.optim.Adam) -> float:
        """One step of Adam, and its result in the model; the batch's loss before it."""
        total, loss = sum(int((part.labels_BT != IGNORED).sum()) for part in parts), 0.0
        gradients = [torch.zeros_like(weight_KV) for weight_KV in weights]
        for part in parts:
            share, found = weight_gradients(self.model, self.sites, part, partial(_share, total), self.inputs)
            loss += share.item()
            for sum_KV, gradient_KV in zip(gradients, found, strict=True):
                sum_KV += gradient_KV
        if not math.isfinite(loss):
            raise NumericsError(f"the loss is {loss}")
        if loss >= self.cfg.floor:
            for weight_KV, gradient_KV in zip(weights, gradients, strict=True):
                weight_KV.grad = gradient_KV
            adam.step()
            for site, weight_KV in zip(self.sites, weights, strict=True):
                _oriented(site, site.weight).copy_(weight_KV)
        return loss

    def _parts(self, rows: Sequence[Tokens]) -> list[Batch]:
        """A batch in passes of at most tokens_per_pass padded tokens, longest rows first."""
        ordered = sorted(rows, key=lambda row: -len(row.input_ids))
        return [join(group) for group in passes([pad([row]) for row in ordered], self.tokens_per_pass)]

    def state_tensors(self) -> dict[str, Tensor]:
        """The edits so far too, where a step trains on them."""
        if not self.seen:
            return super().state_tensors()
        columns = [len(row.labels) for row in self.seen], _flat(self.seen, "input_ids"), _flat(self.seen, "labels")
        return super().state_tensors() | {name: torch.tensor(found) for name, found in zip(SEEN, columns, strict=True)}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave."""
        super().load_state_tensors(tensors)
        self.seen = []
        if SEEN[0] in tensors:
            lengths, ids, labels = (tensors[name].cpu() for name in SEEN)
            cuts = zip(ids.split(lengths.tolist()), labels.split(lengths.tolist()), strict=True)
            self.seen = [Tokens(*(part.tolist() for part in pair)) for pair in cuts]


def end_of_text(model: PreTrainedModel) -> int | None:
    """The token that ends a text, the first where a model has several."""
    generation = getattr(model, "generation_config", None)
    found = getattr(generation, "eos_token_id", None) or model.config.eos_token_id
    return found[0] if isinstance(found, list) else found


def rows_of(batches: Sequence[Batch], end: int | None) -> list[Tokens]:
    """The sequences of padded batches, each with one more token to predict: the end of the text."""
    found = []
    for batch in batches:
        for ids_T, labels_T, length in zip(
            batch.input_ids_BT.tolist(), batch.labels_BT.tolist(), batch.attention_BT.sum(1).tolist(), strict=True
        ):
            ids, labels = ids_T[:length], labels_T[:length]
            found.append(Tokens(ids, labels) if end is None else Tokens([*ids, labels[-1]], [*labels, end]))
    return found


def _share(total: int, logits_MW: Tensor, labels_M: Tensor) -> Tensor:
    """The cross-entropy of some of a batch's `total` answer tokens, as their part of the mean."""
    return cross_entropy(logits_MW, labels_M, reduction="sum") / total


def _oriented(site: EditSite, weight: Tensor) -> Tensor:
    """A weight as the module stores it, seen as [d_k, d_v]."""
    return weight.T if site.transposed else weight


def _flat(rows: Sequence[Tokens], name: str) -> list[int]:
    return [number for row in rows for number in getattr(row, name)]
