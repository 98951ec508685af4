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
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from config.schema import LearnedConfig, PreheatMode, StatisticsMode
from data.batches import Batch, StepBatches
from editor.base import Editor, Shape, SiteRecord, Stopwatch, below
from editor.capture import Rows, answer_logits, weight_gradients
from editor.ridge import Shift
from nets import EditNetwork, Normalizer, NumericsError

Saved = list[tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, slots=True)
class TrainReport:
    """One training step: losses on rephrased and unrelated prompts, gradient norm before clipping, shifts."""

    gen_loss: float
    loc_loss: float
    gradient_norm: float
    sites: dict[str, SiteRecord]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of a step's micro-batches at the edited weights, and the sum of their weight gradients."""

    gen: list[float]
    loc: list[float]
    gradients_KV: list[Tensor]


Proposal = tuple[Tensor, ...]
"""What the network makes of a block of rows: differences [N, V], or pseudo keys [N, K] and gradients [N, V]."""


class LearnedEditor(Editor):
    """An editor with a trained network per weight shape."""

    cfg: LearnedConfig
    trains = True
    fixed: ClassVar[dict[str, Enum]] = {
        "RunningMeanStd_mode": StatisticsMode.original, "preheat_mode": PreheatMode.none
    }  # fmt: skip

    def __init__(self, *args: Any, **more: Any) -> None:
        """As Editor; `seed` draws the networks' start."""
        super().__init__(*args, **more)
        cfg = self.cfg
        self.originals = self.snapshot()
        shapes = [site.shape for site in self.sites]
        # a site's place among the sites of its shape: the row of scale, shift, lr and lamda
        self.places = [shapes[:index].count(shape) for index, shape in enumerate(shapes)]
        generator = torch.Generator().manual_seed(self.seed)
        self.networks = {
            shape: EditNetwork(
                *shape,
                rank=cfg.rank,
                n_blocks=cfg.n_blocks,
                n_sites=shapes.count(shape),
                lr=cfg.lr,
                generator=generator,
            ).to(self.solve_device)
            for shape in dict.fromkeys(shapes)
        }
        self.parameters = [p for network in self.networks.values() for p in network.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=cfg.meta_lr)

    @abstractmethod
    def propose(self, network: EditNetwork, place: int, rows: Rows, normalizer: Normalizer) -> list[Proposal]:
        """What the network makes of one site's rows, editor.batch_size of them at a time."""

    @abstractmethod
    def join(self, network: EditNetwork, place: int, rows: Rows, proposals: list[Proposal]) -> Shift:
        """The shift of one site; called without a graph."""

    @abstractmethod
    def backward(
        self,
        network: EditNetwork,
        place: int,
        rows: Rows,
        proposals: list[Proposal],
        shift: Shift,
        gradient_KV: Tensor,
    ) -> None:
        """Add d(loss)/d(network) to the parameters' gradients, given d(loss)/dW and proposals with their graphs."""

    def pseudo_rows(
        self, network: EditNetwork, place: int, rows: Rows, normalizer: Normalizer
    ) -> tuple[Tensor, Tensor]:
        """The network's output for raw rows."""
        return network(normalizer.keys(rows.keys_NK), normalizer.gradients(rows.gradients_NV), place)

    @torch.no_grad()
    def shifts(self, micro_batches: int, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """The network's shift of every site."""
        with watch("network"):
            normalizers = self._normalizers()
            return [
                self._join(index, micro_batches, self._propose(index, micro_batches, normalizers))
                for index in range(len(self.sites))
            ]

    def _propose(self, index: int, micro_batches: int, normalizers: dict[Shape, Normalizer]) -> list[Proposal]:
        site = self.sites[index]
        rows = self.gather(index, micro_batches)
        return self.propose(self.networks[site.shape], self.places[index], rows, normalizers[site.shape])

    @torch.no_grad()
    def _join(self, index: int, micro_batches: int, proposals: list[Proposal]) -> Shift:
        rows = self.gather(index, micro_batches)
        return self.join(self.networks[self.sites[index].shape], self.places[index], rows, proposals)

    def _normalizers(self) -> dict[Shape, Normalizer]:
        return {shape: Normalizer(statistics) for shape, statistics in self.statistics.items()}

    lookback = 1  # steps whose losses a training step needs, itself included

    def train_epoch(self, steps: Iterable[StepBatches], done: int = 0) -> Iterator[TrainReport]:
        """One pass over the training steps: one update per step, the weights put back after each.

        After a resume, `done` steps of the pass are behind; `steps` then starts with the last
        `lookback` - 1 of them.
        """
        for batches in skip(steps, done, self.lookback):
            saved = self.snapshot()
            report = self._train_step(batches, [batches], saved)
            self.restore(saved)
            self.optimizer.step()
            self.optimizer.zero_grad()
            yield report

    def _train_step(self, batches: StepBatches, looked_at: Sequence[StepBatches], before: Saved) -> TrainReport:
        """Shift the weights by one step and add its gradients; the newest of `looked_at` stands first.

        Raises:
            NumericsError: something is not finite; weights, gradients and last shifts are put back.
        """
        gathered = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        last_shifts = dict(self.last_shifts)
        try:
            return self._train_step_unguarded(batches, looked_at, before)
        except NumericsError:
            self.restore(before)
            self.last_shifts = last_shifts
            for parameter, gradient in zip(self.parameters, gathered, strict=True):
                parameter.grad = gradient
            raise

    def _train_step_unguarded(
        self, batches: StepBatches, looked_at: Sequence[StepBatches], before: Saved
    ) -> TrainReport:
        watch = Stopwatch()
        with self.step_rows(batches, watch):
            count, whole = len(batches.edit), range(len(self.sites))
            with watch("network"), torch.enable_grad():
                normalizers = self._normalizers()
                proposals = [self._propose(index, count, normalizers) for index in whole]
                shifts = [self._join(index, count, proposals[index]) for index in whole]
            self.check_shifts(shifts)
            records = self.write(shifts)
            with watch("losses"):
                losses = [self.losses(step, before, self.decay**back) for back, step in enumerate(looked_at)]
            with watch("network"):
                for index in whole:
                    gradient_KV = torch.stack([loss.gradients_KV[index] for loss in losses]).sum(0)
                    self._backward_site(index, count, proposals[index], shifts[index], gradient_KV)
                    proposals[index].clear()  # and with them their graphs
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.cfg.max_grad_norm).item()
        if not math.isfinite(norm):
            raise NumericsError(f"the gradient of the {self.cfg.name} networks has norm {norm}")
        gen, loc = self.reported([loss.gen for loss in losses], [loss.loc for loss in losses])
        return TrainReport(gen, loc, norm, records, dict(watch.seconds))

    decay = 1.0

    def reported(self, gen: list[list[float]], loc: list[list[float]]) -> tuple[float, float]:
        """The losses as the published program reports them: means over micro-batches."""
        return _mean(gen[0]), _mean(loc[0])

    def _backward_site(
        self, index: int, micro_batches: int, proposals: list[Proposal], shift: Shift, gradient_KV: Tensor
    ) -> None:
        network = self.networks[self.sites[index].shape]
        rows = self.gather(index, micro_batches)
        gradient_KV = gradient_KV.to(self.solve_device)
        self.backward(network, self.places[index], rows, proposals, shift, gradient_KV)

    def losses(self, batches: StepBatches, before: Saved, weight: float) -> Losses:
        """Rephrase loss and KL to the model before the shift, at the weights as they are; gradients times weight."""
        gradients = [torch.zeros(site.shape, device=site.weight.device) for site in self.sites]

        def add(batch: Batch, loss_of, coefficient: float) -> Tensor:
            loss, found = weight_gradients(self.model, self.sites, batch, loss_of, self.inputs)
            for total_KV, gradient_KV in zip(gradients, found, strict=True):
                total_KV.add_(gradient_KV, alpha=coefficient * weight)
            return loss

        after = self.snapshot()
        self.restore(before)
        references = [self._log_probabilities(batch) for batch in batches.unrelated]
        self.restore(after)
        gen = [add(batch, cross_entropy, 1.0) for batch in batches.rephrase]
        loc = [
            add(batch, lambda logits, _, ref=reference_MW: kl(ref, logits), self.cfg.loc_coef)
            for batch, reference_MW in zip(batches.unrelated, references, strict=True)
        ]
        numbers = torch.stack([*gen, *loc]).tolist()
        return Losses(numbers[: len(gen)], numbers[len(gen) :], gradients)

    @torch.no_grad()
    def _log_probabilities(self, batch: Batch) -> Tensor:
        return answer_logits(self.model, batch, self.inputs)[0].log_softmax(-1)

    def network_tensors(self) -> dict[str, Tensor]:
        """Networks and optimizer, by name."""
        found: dict[str, Tensor] = {}
        for shape, network in self.networks.items():
            found |= {f"network/{shape}/{name}": value for name, value in network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
        return found

    def load_network_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what network_tensors gave."""
        for shape, network in self.networks.items():
            network.load_state_dict(below(tensors, f"network/{shape}/"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in below(tensors, "optimizer/").items():
            index, _, key = name.partition("/")
            state.setdefault(int(index), {})[key] = value.cpu() if key == "step" else value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on: networks, optimizer and gathered gradients too."""
        gathered = {
            f"gathered/{index}": parameter.grad
            for index, parameter in enumerate(self.parameters)
            if parameter.grad is not None
        }
        return super().state_tensors() | self.network_tensors() | gathered

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave."""
        super().load_state_tensors(tensors)
        self.load_network_tensors(tensors)
        for name, value in below(tensors, "gathered/").items():
            self.parameters[int(name)].grad = value

    def snapshot(self) -> Saved:
        """Copies of every site's weight."""
        return [site.snapshot() for site in self.sites]

    def restore(self, saved: Saved) -> None:
        """Put copies back."""
        for site, copy in zip(self.sites, saved, strict=True):
            site.restore(copy)


def skip(steps: Iterable[StepBatches], done: int, lookback: int) -> Iterator[StepBatches]:
    """Leave out the steps that are there only to be looked back on."""
    return islice(steps, min(done, lookback - 1), None)


def kl(reference_MW: Tensor, logits_MW: Tensor) -> Tensor:
    """KL(reference || edited), mean over answer positions; the reference as log-probabilities."""
    return kl_div(logits_MW.log_softmax(-1), reference_MW, reduction="batchmean", log_target=True)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
