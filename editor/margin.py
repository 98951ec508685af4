"""Margin-constrained editing in a Kronecker metric: what an edit needs, and the least change that gives it.

For answer token i and site l: key k_il, gradient g_il of that token's own cross-entropy at the site's output, and
mu_i, how far the token's logit leads the best other one. A step solves

    minimize  sum_l tr(D_l^T A_l D_l B_l)     subject to  -sum_l k_il^T D_l g_il = tau_i = max(margin - mu_i, 0)

for the tokens with tau_i > 0:

    G_ij = sum_l (k_il^T A_l^-1 k_jl) (g_il^T B_l^-1 g_jl)        one N x N system for all sites
    (G + damping) lambda = tau                                    rows scaled to unit diagonal first
    D_l = -A_l^-1 (sum_i lambda_i k_il g_il^T) B_l^-1

`passes` times, each at the weights that the one before left. A and B come from text of the model's own (text.py,
metric.py); after a step A_l grows by its keys, so that what was edited stays where it is.
Relatives: passive-aggressive learning (Crammer et al. 2006), recursive least squares, K-FAC (Martens, Grosse 2015).

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from config.check import ConfigError
from config.schema import EditorConfig, MarginConfig, PreheatMode, StatisticsMode, TokenRows
from data.batches import IGNORED, Batch, StepBatches, Tokens, join, micro_batches, passes
from editor.base import Editor, StepReport, Stopwatch, describe_statistics
from editor.capture import capture_tokens
from editor.metric import Factors, Metric
from editor.registry import register
from editor.ridge import Shift, solve_shifted
from editor.text import beginnings, first_tokens, moments_of, prompts_of, written
from nets import NumericsError

TEXTS, LENGTH = 64, 48
"""Sequences of each kind of text, and the tokens that each goes on for."""

Saved = list[tuple[Tensor, Tensor | None]]


@register("margin", config=MarginConfig)
class Margin(Editor):
    """No step size: `margin` says what is asked for, the metric how it is done."""

    cfg: MarginConfig
    fixed: ClassVar[dict[str, Any]] = {
        "token": TokenRows.ans, "RunningMeanStd_mode": StatisticsMode.none, "preheat_mode": PreheatMode.none
    }  # fmt: skip

    def __init__(self, *args: Any, **more: Any) -> None:
        """As Editor; `seed` draws the metric's text."""
        super().__init__(*args, **more)
        self.metric: Metric | None = None
        self.names = [site.name for site in self.sites]
        self.factors: Factors = []
        self.lacking_N = torch.zeros(0, dtype=torch.float64)

    @classmethod
    def check(cls, cfg: EditorConfig) -> None:
        """Also refuse, by a ConfigError, a step size: there is none."""
        super().check(cfg)
        if cfg.lr != EditorConfig.lr:
            raise ConfigError(f"editor.lr={cfg.lr}: editor={cfg.name} has no step size; leave lr out")

    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """Write one step's edits into the weights; a warm-up is a step like any other.

        Raises:
            NumericsError: as Editor.step; weights, statistics and metric are then as before.
        """
        watch = Stopwatch()
        with self._put_back_on_failure() as weights, self.step_rows(batches, watch) as (loss, tokens):
            keys = [self.cache.gather(site).keys_NK for site in range(len(self.sites))]
            with watch("metric"):
                metric = self.metric or self.metric_of(batches)
                self.factors = metric.factors(self.names)
            shifts = self._passes(batches, weights, watch, warm_up=warm_up)
            self.check_shifts(shifts)
            with watch("metric"):
                metric = metric.absorb(keys)
            with watch("write"):
                self._put(weights)
                records = self.write(shifts)
            self.metric = metric
        return StepReport(loss, tokens, records, describe_statistics(self.statistics), dict(watch.seconds))

    def _passes(self, batches: StepBatches, weights: Saved, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """The shifts of all passes together; the weights are left as the last but one has them."""
        shifts = self.shifts(watch, warm_up=warm_up)
        for _ in range(self.cfg.passes - 1):
            self.check_shifts(shifts)
            self._put(weights)
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
        """Every answer token as a sequence of its own, which ends there: its gradient holds no other token's loss."""
        found = []
        for group in passes(micro_batches(one_by_one(batches), 1), self.cfg.tokens_per_pass):
            with watch("capture"):
                captured = capture_tokens(self.model, self.sites, join(group), self.inputs)
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

    def metric_of(self, batches: StepBatches) -> Metric:
        """The metric of text that the model writes by itself, and of text that goes on from the edits' beginnings."""
        draw = torch.Generator().manual_seed(self.seed)
        prompts = prompts_of(batches.edit)
        seeds = [first_tokens(prompts, TEXTS, draw), beginnings(prompts, TEXTS, draw)]
        texts = [written(self.model, each, LENGTH, draw) for each in seeds]
        return Metric.of([moments_of(self.model, self.sites, text, self.solve_device) for text in texts],
                         self.cfg.text_weight)  # fmt: skip

    @contextmanager
    def _put_back_on_failure(self) -> Iterator[Saved]:
        weights = [site.snapshot() for site in self.sites]
        try:
            yield weights
        except BaseException:
            self._put(weights)
            raise
        finally:
            self.factors = []

    def _put(self, weights: Saved) -> None:
        for site, saved in zip(self.sites, weights, strict=True):
            site.restore(saved)

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on: the metric too, once there is one."""
        return super().state_tensors() | (self.metric.state_tensors(self.names) if self.metric else {})

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave."""
        super().load_state_tensors(tensors)
        self.metric = Metric.restored(tensors, self.names)


def one_by_one(batches: Sequence[Batch]) -> list[Tokens]:
    """For every answer token the sequence that ends where it is predicted."""
    found = []
    for batch in batches:
        for ids, labels in zip(batch.input_ids_BT.tolist(), batch.labels_BT.tolist(), strict=True):
            ends = [at for at, label in enumerate(labels) if label != IGNORED]
            found += [Tokens(ids[: at + 1], [IGNORED] * at + [labels[at]]) for at in ends]
    return found


def least_change(
    keys: Sequence[Tensor],
    gradients: Sequence[Tensor],
    lacking_N: Tensor,
    factors: Factors,
    damping: float,
    retries: Counter[str] | None = None,
) -> list[Shift]:
    """The shifts of all sites that give each of N tokens what it lacks, the smallest in the metric.

    keys [N, K] and gradients [N, V] of every site are float64; so is lacking_N.
    """
    gram_NN = torch.zeros(len(lacking_N), len(lacking_N), dtype=torch.float64, device=lacking_N.device)
    for key_NK, gradient_NV, (a_KK, b_VV) in zip(keys, gradients, factors, strict=True):
        eased_KN, eased_VN = lower_solve(a_KK, key_NK.T), lower_solve(b_VV, gradient_NV.T)
        gram_NN += (eased_KN.T @ eased_KN) * (eased_VN.T @ eased_VN)
    scale_N = gram_NN.diagonal().sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    gram_NN /= scale_N.outer(scale_N)
    answer_N = solve_shifted(gram_NN, damping, (lacking_N / scale_N)[:, None], retries).squeeze(1) / scale_N
    shifts = []
    for key_NK, gradient_NV, (a_KK, b_VV) in zip(keys, gradients, factors, strict=True):
        left_NK = torch.cholesky_solve(key_NK.T, a_KK).T.float()
        right_NV = torch.cholesky_solve((-answer_N[:, None] * gradient_NV).T, b_VV).T.float()
        shifts.append(Shift(left_NK, right_NV))
    return shifts


def lower_solve(factor_XX: Tensor, right_XN: Tensor) -> Tensor:
    """L^-1 R."""
    return torch.linalg.solve_triangular(factor_XX, right_XN, upper=False)


def joined(first: Shift, second: Shift) -> Shift:
    """The sum of two shifts, as thin factors."""
    assert first.left_NK is not None and second.left_NK is not None
    return Shift(torch.cat([first.left_NK, second.left_NK]), torch.cat([first.right_NV, second.right_NV]))
