"""What the learned editors share: a network per weight shape, its training step, and editing with it.

Training is two-stage: the shifts are computed without a graph, the losses give d(loss)/dW of every
site at the edited weights, and that gradient goes on through the ridge solve (or the sum) by hand
and through the network by autograd, chunk by chunk.

Shape suffixes: N rows, M answer positions, W vocabulary, K = d_k, V = d_v.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from config.choices import PreheatMode, StatisticsMode
from config.editors import LearnedConfig
from data.batches import Batch, StepBatches
from editor.base import Editor, Saved, Shape, Stopwatch
from editor.capture import LossOf, Rows, answer_logits, weight_gradients
from editor.frozen import look_ahead
from editor.networks import Networks, check_checkpoint, read_checkpoint, save_checkpoint
from editor.ridge import Shift, SiteRecord
from nets import EditNetwork, Normalizer, NumericsError, RunningStatistics


@dataclass(frozen=True, slots=True)
class TrainReport:
    """One training step: losses on rephrased and unrelated prompts, gradient norm before clipping, shifts."""

    gen_loss: float
    loc_loss: float
    gradient_norm: float
    sites: dict[str, SiteRecord]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class AtSite:
    """One site's rows in a step, with the network of its shape, its place there and the shape's statistics."""

    network: EditNetwork
    place: int
    rows: Rows
    statistics: RunningStatistics

    def pseudo_rows(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """The network's output for the normalized rows, `size` of them at a time."""
        normalizer = Normalizer(self.statistics)
        return [
            self.network(normalizer.keys(chunk.keys_NK), normalizer.gradients(chunk.gradients_NV), self.place)
            for chunk in self.rows.split(size)
        ]


Proposal = tuple[Tensor, ...]
"""What the network makes of a block of rows: differences [N, V], or pseudo keys [N, K] and gradients [N, V]."""


class LearnedEditor(Editor):
    """An editor with a trained network per weight shape."""

    cfg: LearnedConfig
    trains = True
    fixed: ClassVar[dict[str, Enum]] = {
        "RunningMeanStd_mode": StatisticsMode.original, "preheat_mode": PreheatMode.none
    }  # fmt: skip
    lookback = 1
    """Steps whose losses a training step needs, itself included."""
    decay = 1.0
    """Weight of a loss one step back."""

    def __init__(self, *args: Any, **more: Any) -> None:
        """As Editor; `seed` draws the networks' start."""
        super().__init__(*args, **more)
        self.originals = self.snapshot()
        self.networks = Networks(self.cfg, self.sites, self.seed, self.solve_device)

    @abstractmethod
    def propose(self, at: AtSite) -> list[Proposal]:
        """What the network makes of one site's rows, editor.batch_size of them at a time."""

    @abstractmethod
    def join(self, at: AtSite, proposals: list[Proposal]) -> Shift:
        """The shift of one site; called without a graph."""

    @abstractmethod
    def backward(self, at: AtSite, proposals: list[Proposal], shift: Shift, gradient_KV: Tensor) -> None:
        """Add d(loss)/d(network) to the parameters' gradients, given d(loss)/dW and proposals with their graphs."""

    def at(self, site: int) -> AtSite:
        """The rows of one site in this step, with its network and statistics."""
        statistics = self.statistics[self.sites[site].shape]
        return AtSite(*self.networks.at(site), self.cache.gather(site), statistics)

    @torch.no_grad()
    def shifts(self, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """The network's shift of every site."""
        with watch("network"):
            return [self.join(at, self.propose(at)) for at in map(self.at, range(len(self.sites)))]

    def train_epoch(self, steps: Iterable[StepBatches], done: int = 0) -> Iterator[TrainReport]:
        """One pass over the training steps: one update per step, the weights put back after each.

        After a resume, `done` steps of the pass are behind; `steps` then starts with the last
        `lookback` - 1 of them.
        """
        for batches in islice(steps, min(done, self.lookback - 1), None):
            saved = self.snapshot()
            report = self._train_step(batches, [batches], saved)
            self.restore(saved)
            self.networks.step()
            yield report

    @contextmanager
    def _put_back_on_failure(self, before: Saved) -> Iterator[None]:
        gathered, last_shifts = self.networks.gradients(), dict(self.last_shifts)
        try:
            yield
        except BaseException:
            self.restore(before)
            self.last_shifts = last_shifts
            self.networks.put_back(gathered)
            raise

    def _train_step(self, batches: StepBatches, looked_at: Sequence[StepBatches], before: Saved) -> TrainReport:
        """Shift the weights by one step and add its gradients; the newest of `looked_at` stands first.

        Raises:
            NumericsError: something is not finite; weights, gradients and last shifts are put back.
        """
        watch, whole = Stopwatch(self.model.device), range(len(self.sites))
        with self._put_back_on_failure(before), self.step_rows(batches, watch):
            with watch("network"), torch.enable_grad():
                proposals = [self.propose(self.at(index)) for index in whole]
                with torch.no_grad():
                    shifts = [self.join(self.at(index), proposals[index]) for index in whole]
            self.check_shifts(shifts)
            records = self.write(shifts)
            with watch("losses"):
                found = [losses_of(self, step, before, self.decay**back) for back, step in enumerate(looked_at)]
            gen, loc, gradients = (list(each) for each in zip(*found, strict=True))
            with watch("network"):
                for index in whole:
                    gradient_KV = torch.stack([step[index] for step in gradients]).sum(0).to(self.solve_device)
                    self.backward(self.at(index), proposals[index], shifts[index], gradient_KV)
                    proposals[index].clear()  # and with them their graphs
            norm = torch.nn.utils.clip_grad_norm_(self.networks.parameters, self.cfg.max_grad_norm).item()
            if not math.isfinite(norm):
                raise NumericsError(f"the gradient of the {self.cfg.name} networks has norm {norm}")
        return TrainReport(*self.reported(gen, loc), norm, records, dict(watch.seconds))

    def reported(self, gen: list[list[float]], loc: list[list[float]]) -> tuple[float, float]:
        """The losses as the published program reports them: means over micro-batches."""
        return sum(gen[0]) / len(gen[0]), sum(loc[0]) / len(loc[0])

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on: networks, optimizer and gathered gradients too."""
        return super().state_tensors() | self.networks.tensors()

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave."""
        super().load_state_tensors(tensors)
        self.networks.load_tensors(tensors)

    def save_networks(self, folder: Path) -> None:
        """Keep networks, optimizer and statistics in a folder."""
        save_checkpoint(folder, self.cfg, self._shapes(), self.networks.tensors() | self.statistics_tensors())

    def load_networks(self, folder: str | Path) -> None:
        """Take over what save_networks kept; a ConfigError names what differs or is damaged."""
        check_checkpoint(folder, self.cfg, self._shapes())
        tensors = read_checkpoint(folder, self.solve_device)
        self.networks.load_tensors(tensors)
        self.load_statistics(tensors)

    def _shapes(self) -> dict[str, Shape]:
        return {site.name: site.shape for site in self.sites}


def losses_of(
    editor: LearnedEditor, batches: StepBatches, before: Saved, weight: float
) -> tuple[list[float], list[float], list[Tensor]]:
    """Each micro-batch's rephrase loss and KL to the model before the shift, at the weights as they are.

    Returns:
        both, and the sum of their gradients for every site's weight [d_k, d_v], times `weight`.
    """
    look_ahead(editor.inputs, [*batches.unrelated, *batches.rephrase])
    after = editor.snapshot()
    editor.restore(before)
    with torch.no_grad():
        logits = [answer_logits(editor.model, batch, editor.inputs)[0] for batch in batches.unrelated]
        references = [logits_MW.log_softmax(-1) for logits_MW in logits]
    editor.restore(after)
    gradients = [torch.zeros(site.shape, device=site.weight.device) for site in editor.sites]

    def add(batch: Batch, loss_of: LossOf, coefficient: float) -> Tensor:
        loss, found = weight_gradients(editor.model, editor.sites, batch, loss_of, editor.inputs)
        for total_KV, gradient_KV in zip(gradients, found, strict=True):
            total_KV.add_(gradient_KV, alpha=coefficient * weight)
        return loss

    gen = [add(batch, cross_entropy, 1.0) for batch in batches.rephrase]
    loc = [
        add(batch, partial(kl_to, reference_MW), editor.cfg.loc_coef)
        for batch, reference_MW in zip(batches.unrelated, references, strict=True)
    ]
    numbers = torch.stack([*gen, *loc]).tolist()
    return numbers[: len(gen)], numbers[len(gen) :], gradients


def kl_to(reference_MW: Tensor, logits_MW: Tensor, _: Tensor) -> Tensor:
    """KL(reference || edited), mean over answer positions; the reference as log-probabilities."""
    return kl_div(logits_MW.log_softmax(-1), reference_MW, reduction="batchmean", log_target=True)
