"""Margin-constrained editing in a Kronecker metric: what an edit needs, and the least change that gives it.

For answer token i and site l: key k_il, gradient g_il of that token's own cross-entropy at the site's output, and
mu_i, how far the token's logit leads the best other one. A step solves

    minimize  sum_l tr(D_l^T A_l D_l B_l)     subject to  -sum_l k_il^T D_l g_il = tau_i = max(margin - mu_i, 0)

for the tokens with tau_i > 0:

    G_ij = sum_l (k_il^T A_l^-1 k_jl) (g_il^T B_l^-1 g_jl)        one N x N system for all sites
    (G + damping) lambda = tau                                    rows scaled to unit diagonal first
    D_l = -A_l^-1 (sum_i lambda_i k_il g_il^T) B_l^-1

`passes` times, each at the weights that the one before left. A and B come from text of the model's own or of records
(text.py, metric.py), of which each step asks some again (panel.py); after a step A_l grows by its keys, so that what
was edited stays where it is.
Relatives: passive-aggressive learning (Crammer et al. 2006), recursive least squares, K-FAC (Martens, Grosse 2015).

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor

from config.check import ConfigError
from config.choices import MetricText, PreheatMode, StatisticsMode, TokenRows
from config.editors import AnyEditorConfig, MarginConfig
from data.batches import IGNORED, Batch, StepBatches, Tokens, join, micro_batches, passes
from editor.base import Editor, Saved, StepReport, Stopwatch, describe_statistics
from editor.capture import Asked, capture_tokens
from editor.frozen import look_ahead
from editor.metric import Factors, Metric, joined, least_change
from editor.own_gradients import own_gradients, works
from editor.panel import Panel
from editor.ranks import Here
from editor.registry import register
from editor.ridge import Shift
from editor.text import beginnings, first_tokens, integer, moments_of, prompts_of, sampled, written
from nets import NumericsError

TEXTS, LENGTH, ANSWER = 48, 32, 8
"""Sequences of each kind of text, the tokens that each goes on for, and those of an answer."""
SAID = 24
"""Tokens of the model's answer to an everyday question."""
RECORDS, READ = 1000, ("edit", "unrelated")
"""Records that text=records reads, at most, and what of them."""
RENEWED = 0.3
"""Of the metric's text, what a step takes from those whose turn it is to be asked again."""


@register("margin", config=MarginConfig)
class Margin(Editor):
    """No step size: `margin` says what is asked for, the metric how it is done."""

    cfg: MarginConfig
    scaled = False
    fixed: ClassVar[dict[str, Any]] = {
        "token": TokenRows.ans, "RunningMeanStd_mode": StatisticsMode.none, "preheat_mode": PreheatMode.none
    }  # fmt: skip

    def __init__(self, *args: Any, **more: Any) -> None:
        """As Editor; `seed` draws the metric's text."""
        super().__init__(*args, **more)
        self.metric: Metric | None = None
        self.names = [site.name for site in self.sites]
        self.panel: Panel | None = None
        self.factors: Factors = []
        self.lacking_N = torch.zeros(0, dtype=torch.float64)

    @cached_property
    def together(self) -> bool:
        """Whether one pass gives every token's own gradient; else each is asked as a sequence that ends there."""
        return works(self.model)

    @classmethod
    def check(cls, cfg: AnyEditorConfig) -> None:
        """Also refuse, by a ConfigError, a step size: there is none."""
        super().check(cfg)
        assert isinstance(cfg, MarginConfig)
        if cfg.lr is not None:
            raise ConfigError(f"editor.lr={cfg.lr}: editor={cfg.name} has no step size; leave lr out")

    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """Write one step's edits into the weights; a warm-up is a step like any other.

        Raises:
            NumericsError: as Editor.step; weights, statistics and metric are then as before.
        """
        watch = Stopwatch(self.model.device)
        with self._put_back_on_failure() as weights, self.step_rows(batches, watch) as (loss, tokens):
            keys = [self.cache.gather(site).keys_NK for site in range(len(self.sites))]
            with watch("metric"):
                if self.panel is None and self.reads(self.cfg):
                    raise ConfigError("editor.text=records: no record was read yet; call session.read(facts) first")
                panel = self.panel or self._own_text(batches)
                metric = self._metric_now(panel)
                self.factors = metric.factors(self.names)
            shifts = self._passes(batches, weights, watch, warm_up=warm_up)
            self.check_shifts(shifts)
            with watch("metric"):
                self.factors = []  # they are as large as the sums that take their place
                metric = metric.absorb(keys)
            with watch("write"):
                self.restore(weights)
                records = self.write(shifts)
            self.metric, self.panel = metric, panel
        return StepReport(loss, tokens, records, describe_statistics(self.statistics), dict(watch.seconds))

    def _passes(self, batches: StepBatches, weights: Saved, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """The shifts of all passes together; the weights are left as the last but one has them."""
        shifts = self.shifts(watch, warm_up=warm_up)
        for _ in range(self.cfg.passes - 1):
            self.check_shifts(shifts)
            self.restore(weights)
            for site, shift in zip(self.sites, shifts, strict=True):
                site.add(shift.contiguous())
            self.cache.clear()
            self._capture_rows(batches.edit, watch)
            if not self.lacking_N.any():
                break
            more = self.shifts(watch, warm_up=warm_up)
            shifts = [joined(*pair) for pair in zip(shifts, more, strict=True)]
        return shifts

    def shifts(self, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """One pass: the least change by which every token in the cache gains what its margin lacks."""
        with watch("solve"):
            behind_N = self.lacking_N > 0
            rows = [self.cache.gather(site) for site in range(len(self.sites))]
            keys = [one.keys_NK[behind_N].double() for one in rows]
            gradients = [one.gradients_NV[behind_N].double() for one in rows]
            return least_change(keys, gradients, self.lacking_N[behind_N], self.factors, self.cfg.damping, self.retries)

    def _capture_rows(self, batches: Sequence[Batch], watch: Stopwatch) -> tuple[float, int]:
        """Every answer token with the gradient of its own loss, which holds no other token's."""
        found = []
        if not self.together:
            batches = micro_batches(one_by_one(batches), 1)
        here, work = Here(self.model, self.sites, self.inputs), partial(asked_by, together=self.together)
        for captured in watch.over("capture", self.ranks.deal(here, work, passes(batches, self.tokens_per_pass))):
            with watch("cache"):
                self.cache.put([rows.to(self.solve_device) for rows in captured.rows])
            found.append(torch.stack([captured.losses_N, captured.margins_N]).to(self.solve_device).double())
        losses_N, margins_N = torch.cat(found, 1)
        finite = [self.cache.gather(site).is_finite() for site in range(len(self.sites))]
        self._check(torch.stack(finite), "keys or value gradients are not finite")
        self.lacking_N = (self.cfg.margin - margins_N).clamp(min=0)
        loss = losses_N.mean().item()
        if not math.isfinite(loss) or not self.lacking_N.isfinite().all():
            raise NumericsError(f"the loss is {loss}")
        return loss, len(losses_N)

    @classmethod
    def asks(cls, cfg: AnyEditorConfig) -> bool:
        """Whether the metric's text is that of everyday questions too."""
        assert isinstance(cfg, MarginConfig)
        return cfg.text is MetricText.everyday

    @classmethod
    def reads(cls, cfg: AnyEditorConfig) -> int:
        """The metric's text may be that of records which are not edited."""
        assert isinstance(cfg, MarginConfig)
        return RECORDS if cfg.text is MetricText.records else 0

    def read(self, steps: Iterable[StepBatches]) -> None:
        """Make the metric of running text, and of records' answers to their prompts and to their unrelated prompts.

        Of these count the positions of answer tokens, with labels drawn from the model.
        """
        if self.last_shifts:
            raise ConfigError(f"editor={self.cfg.name} reads records before its first step alone")
        asked, draw = list(steps), torch.Generator().manual_seed(self.seed)
        edits, unrelated = ([one for batches in asked for one in getattr(batches, kind)] for kind in READ)
        running = written(self.model, first_tokens(prompts_of(edits), TEXTS, draw), LENGTH, draw)
        self.panel = Panel.of((running, edits, unrelated))
        self.metric = self._felt(self.panel)

    def _own_text(self, batches: StepBatches) -> Panel:
        """Running text, what goes on from the edits' beginnings, answers to the edits and to everyday questions."""
        draw, prompts = torch.Generator().manual_seed(self.seed), prompts_of(batches.edit)
        answered = [prompts[integer(len(prompts), draw)] for _ in range(TEXTS)]
        starts = [(first_tokens(prompts, TEXTS, draw), LENGTH), (beginnings(prompts, TEXTS, draw), LENGTH)]
        questions = [(self.questions, SAID)] if self.asks(self.cfg) else []
        return Panel.of(written(self.model, *kind, draw) for kind in [*starts, (answered, ANSWER), *questions])

    def _felt(self, panel: Panel, turn: int | None = None) -> Metric:
        """What text is felt as now, of all of it or of the share whose turn it is; labels are drawn from the model."""
        draw = torch.Generator().manual_seed(self.seed + (0 if turn is None else 1 + turn))
        kinds, relabel = panel.batches(self.tokens_per_pass, turn), sampled(draw)
        look_ahead(self.inputs, chain.from_iterable(kinds))
        found = [moments_of(self.model, self.sites, one, self.solve_device, relabel, self.inputs) for one in kinds]
        return Metric.of(found, self.cfg.text_weight)

    def _metric_now(self, panel: Panel) -> Metric:
        """The metric of this step. What text was felt as at first grows stale: a share of it is asked again."""
        if self.metric is None:
            return self._felt(panel)
        if not self.last_shifts:
            return self.metric
        return self.metric.renewed(self._felt(panel, self.metric.renewals), RENEWED)

    @contextmanager
    def _put_back_on_failure(self) -> Iterator[Saved]:
        weights = self.snapshot()
        try:
            yield weights
        except BaseException:
            self.restore(weights)
            raise
        finally:
            self.factors = []

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on: the metric too, once there is one."""
        found = super().state_tensors()
        if self.metric and self.panel:
            found |= self.metric.state_tensors(self.names) | self.panel.state_tensors()
        return found

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave."""
        super().load_state_tensors(tensors)
        self.metric, self.panel = Metric.restored(tensors, self.names), Panel.restored(tensors)


def asked_by(here: Here, group: Sequence[Batch], *, together: bool) -> Asked:
    """The tokens of one pass; `together` as Margin has it."""
    inputs = own_gradients(here.inputs) if together else here.inputs
    return capture_tokens(here.model, here.sites, join(group), inputs)


def one_by_one(batches: Sequence[Batch]) -> list[Tokens]:
    """For every answer token the sequence that ends where it is predicted."""
    found = []
    for batch in batches:
        for ids, labels in zip(batch.input_ids_BT.tolist(), batch.labels_BT.tolist(), strict=True):
            ends = [at for at, label in enumerate(labels) if label != IGNORED]
            found += [Tokens(ids[: at + 1], [IGNORED] * at + [labels[at]]) for at in ends]
    return found
