"""What every editor shares, and what those share that capture rows into running statistics.

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from config.check import ConfigError
from config.editors import AnyEditorConfig, EditorConfig
from config.sizes import at_once
from data.batches import Batch, StepBatches, passes
from editor.cache import RowCache
from editor.capture import Inputs, tokens_of
from editor.journal import SavedSite
from editor.ranks import ALONE, Here, captured_by
from editor.records import StatisticsRecord as StatisticsRecord
from editor.records import describe_statistics as describe_statistics
from editor.ridge import Shift, SiteRecord, site_records
from editor.sites import EditSite
from editor.stopwatch import Stopwatch as Stopwatch
from nets import NumericsError, RunningStatistics

Shape = tuple[int, int]
"""(d_k, d_v) of a site's weight: sites of one shape share their running statistics."""
Saved = list[SavedSite]
"""Copies of every site's weight, and of its float32 master where it has one."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One written step; `sites` by name, `statistics` by weight shape, `seconds` by phase."""

    loss: float
    tokens: int
    sites: dict[str, SiteRecord]
    statistics: dict[str, StatisticsRecord]
    seconds: dict[str, float]


class AnyEditor(ABC):
    """What `editor=` may name: it writes edits into sites, and says what the next step depends on."""

    config_class: ClassVar[type[AnyEditorConfig]] = AnyEditorConfig
    trains: ClassVar[bool] = False
    """Whether a network is trained on training edits before the first edit."""
    writes: ClassVar[bool] = True
    """Whether edits go into the weights."""
    fixed: ClassVar[dict[str, Enum]] = {}
    """Keys that have but one value here; `otherwise` says what to do for another."""
    scaled: ClassVar[bool] = True
    """Whether editor.lr scales its shifts."""
    otherwise: ClassVar[str] = "choose another editor"
    half_written = False
    """Whether a write broke off, and some sites may have their shift and others not."""

    def __init__(
        self,
        cfg: AnyEditorConfig,
        model: PreTrainedModel,
        sites: list[EditSite],
        cache: RowCache | None = None,
        *,
        solve_device: torch.device | None = None,
        seed: int = 0,
        inputs: Inputs = tokens_of,
    ) -> None:
        """`inputs` is how the model is called (capture.Inputs); statistics and solves run on `solve_device`."""
        self.cfg, self.model, self.sites, self.inputs, self.seed = cfg, model, sites, inputs, seed
        self.cache = RowCache() if cache is None else cache
        self.solve_device = solve_device or torch.device("cpu")
        self.statistics: dict[Shape, RunningStatistics] = {}
        self.last_shifts: dict[str, Shift] = {}
        self.retries: Counter[str] = Counter()
        self.questions: list[list[int]] = []
        self.ranks = ALONE

    @property
    def tokens_per_pass(self) -> int:
        """Padded tokens that a forward and backward pass may hold."""
        return at_once("editor.tokens_per_pass", self.cfg.tokens_per_pass, self.model.device.type)

    @classmethod
    def check(cls, cfg: AnyEditorConfig) -> None:
        """Refuse settings that this editor cannot work with; needs no model.

        Raises:
            ConfigError: names the key, its value and what would be right.
        """
        for key, value in cls.fixed.items():
            if getattr(cfg, key) is not value:
                raise ConfigError(
                    f"editor.{key}={getattr(cfg, key).value}: editor={cfg.name} means {value.value}; "
                    f"{cls.otherwise} for anything else"
                )

    @classmethod
    def asks(cls, cfg: AnyEditorConfig) -> bool:
        """Whether `questions` is to hold the tokens of everyday questions before the first step."""
        return False

    @classmethod
    def reads(cls, cfg: AnyEditorConfig) -> int:
        """How many records that are not edited `read` wants before the first step; 0 for none."""
        return 0

    def read(self, steps: Iterable[StepBatches]) -> None:
        """Look at records that are not edited; the weights stay as they are."""
        raise ConfigError(f"editor={self.cfg.name} reads no records before it edits")

    @staticmethod
    def in_front(prompt: str, answer: str) -> str:
        """What will stand before every prompt that measures an edit once it was taken; needs no model."""
        return ""

    def context(self, prompt: str) -> str:
        """What stands before every prompt of the edit with this prompt now, its own among them."""
        return ""

    @abstractmethod
    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """Write one step's edits into the weights.

        Raises:
            NumericsError: a loss, gradient, statistic or shift that is not finite; names the site.
                The editor and the weights are then as before the step.
        """

    def check_shifts(self, shifts: Sequence[Shift]) -> None:
        """Refuse shifts that are not finite, before any weight is touched."""
        self._check(torch.stack([shift.is_finite() for shift in shifts]), "the shift is not finite")

    def _check(self, finite: Tensor, complaint: str) -> None:
        bad = [site.name for site, good in zip(self.sites, finite.tolist(), strict=True) if not good]
        if bad:
            raise NumericsError(f"{bad[0]}: {complaint}")

    def write(self, shifts: Sequence[Shift]) -> dict[str, SiteRecord]:
        """Add every shift to its site's weight and say what it did.

        What is kept for the next step is contiguous, as it will be when a checkpoint is read: some processors'
        kernels round other memory layouts differently.
        """
        shifts = [shift.contiguous() for shift in shifts]
        self.half_written = True
        lost = [site.add(shift).to(self.solve_device) for site, shift in zip(self.sites, shifts, strict=True)]
        self.half_written = False
        names = [site.name for site in self.sites]
        records = site_records(shifts, [self.last_shifts.get(name) for name in names], lost)
        self.last_shifts = dict(zip(names, shifts, strict=True))
        return dict(zip(names, records, strict=True))

    def snapshot(self) -> Saved:
        """Copies of every site's weight."""
        return [site.snapshot() for site in self.sites]

    def restore(self, saved: Saved) -> None:
        """Put copies back."""
        for site, copy in zip(self.sites, saved, strict=True):
            site.restore(copy)
        self.half_written = False

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name; every tensor is contiguous."""
        found: dict[str, Tensor] = {}
        for site in self.sites:
            found[f"weight/{site.name}"] = site.weight
            if site.master is not None:
                found[f"master/{site.name}"] = site.master
        for name, shift in self.last_shifts.items():
            found[f"shift_right/{name}"] = shift.right_NV
            if shift.left_NK is not None:
                found[f"shift_left/{name}"] = shift.left_NK
        return found

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave; the tensors are on solve_device."""
        self.last_shifts.clear()
        for site in self.sites:
            site.restore((tensors[f"weight/{site.name}"], tensors.get(f"master/{site.name}")))
            if f"shift_right/{site.name}" in tensors:
                left_NK = tensors.get(f"shift_left/{site.name}")
                self.last_shifts[site.name] = Shift(left_NK, tensors[f"shift_right/{site.name}"])

    def spectrum(self) -> dict[str, dict[str, Any]]:
        """Eigenvalues of the value covariance by weight shape, largest first, where this editor whitens."""
        return {}


class Editor(AnyEditor):
    """An editor that makes shifts of captured rows and their running statistics; what a new one adds is `shifts`."""

    config_class: ClassVar[type[EditorConfig]] = EditorConfig
    cfg: EditorConfig

    def __init__(self, *args: Any, **more: Any) -> None:
        """As AnyEditor; the sites of one weight shape share their statistics."""
        super().__init__(*args, **more)
        self.statistics = {
            shape: RunningStatistics(*shape, covariance=self.covariance(), device=self.solve_device)
            for shape in dict.fromkeys(site.shape for site in self.sites)
        }

    def covariance(self) -> bool:
        """Whether the covariance of value gradients will be asked for."""
        return False

    @abstractmethod
    def shifts(self, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """The shift of every site, from the rows in the cache and the statistics as they are now."""

    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """Capture rows, merge statistics, make shifts, write them."""
        watch = Stopwatch(self.model.device)
        with self.step_rows(batches, watch) as (loss, tokens):
            shifts = self.shifts(watch, warm_up=warm_up)
            self.check_shifts(shifts)
        with watch("write"):
            records = self.write(shifts)
        return StepReport(loss, tokens, records, describe_statistics(self.statistics), dict(watch.seconds))

    @contextmanager
    def step_rows(self, batches: StepBatches, watch: Stopwatch) -> Iterator[tuple[float, int]]:
        """A step's rows in cache and statistics, as (mean loss, answer tokens).

        On failure inside, the statistics are put back; the cache is emptied in any case.
        """
        saved = deepcopy(self.statistics)
        try:
            loss, tokens = self._capture_rows(batches.edit, watch)
            with watch("statistics"):
                self._update_statistics()
            yield loss, tokens
        except BaseException:
            self.statistics = saved
            raise
        finally:
            self.cache.clear()

    def _capture_rows(self, batches: Sequence[Batch], watch: Stopwatch) -> tuple[float, int]:
        losses, tokens, finite = [], 0, []
        here, work = Here(self.model, self.sites, self.inputs), partial(captured_by, token=self.cfg.token)
        for found in watch.over("capture", self.ranks.deal(here, work, passes(batches, self.tokens_per_pass))):
            for captured in found:
                rows = [row.to(self.solve_device) for row in captured.rows]
                finite.append(torch.stack([row.is_finite() for row in rows]))
                with watch("cache"):
                    self.cache.put(rows)
                losses.append(captured.loss.to(self.solve_device))
                tokens += captured.tokens
        self._check(torch.stack(finite).all(0), "keys or value gradients are not finite")
        if not math.isfinite(loss := torch.stack(losses).mean().item()):
            raise NumericsError(f"the loss is {loss}")
        return loss, tokens

    def _update_statistics(self) -> None:
        for shape, statistics in self.statistics.items():
            sites = [index for index, site in enumerate(self.sites) if site.shape == shape]
            statistics.merge(self.cache.blocks(sites))
        finite = [self.statistics[site.shape].m2_D.isfinite().all() for site in self.sites]
        self._check(torch.stack(finite), "the running statistics are not finite")

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, the running statistics too."""
        return super().state_tensors() | self.statistics_tensors()

    def statistics_tensors(self) -> dict[str, Tensor]:
        """The running statistics, by name."""
        found: dict[str, Tensor] = {}
        for shape, statistics in self.statistics.items():
            found |= {f"statistics/{shape}/{name}": value for name, value in statistics.state_dict().items()}
        return found

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave; the tensors are on solve_device."""
        super().load_state_tensors(tensors)
        self.load_statistics(tensors)

    def load_statistics(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what statistics_tensors gave."""
        for shape, statistics in self.statistics.items():
            statistics.load_state_dict(below(tensors, f"statistics/{shape}/"))


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
