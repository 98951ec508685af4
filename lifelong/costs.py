"""What a step of editing takes, estimated from shapes alone: the last lines of python main.py inspect=true.

Shape suffixes of the formulae: N rows a site, K = d_k, V = d_v, M = min(N, K), T tokens of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from config.choices import StatisticsMode, TokenRows
from config.editors import AlphaEditConfig, EditorConfig, LearnedConfig, MarginConfig, MemitConfig, RecursiveRidgeConfig
from config.schema import Config
from config.sites import layers
from model import pick_dtype

TOKENS, ANSWER = 16, 3
"""Tokens of a prompt with its answer, and of the answer: assumed; facts has 12 and 1.3 in the embedded model."""
MIB = 2**20
SINGLE, DOUBLE = 4, 8  # bytes of a number
EIGEN = 9  # times d_v^3: eigenvalues and vectors of a symmetric matrix by divide and conquer
Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Work:
    """The shapes of a step: rows of each site, and what the editor keeps."""

    rows: int
    sites: Sequence[Shape]
    whitens: bool
    rank: int = 0
    blocks: int = 0
    metric: bool = False
    squares: int = 0

    def statistics(self) -> int:
        """Bytes of the running statistics, float64: 2 (K + V) a shape, V^2 where it whitens.

        2 K^2 + V^2 a site where editor=margin keeps a metric; `squares` of K^2 a site where an editor keeps a system.
        """
        metric = sum(2 * k * k + v * v for k, v in self.sites) * self.metric
        metric += sum(k * k for k, _ in self.sites) * self.squares
        return DOUBLE * (metric + sum(2 * (k + v) + v * v * self.whitens for k, v in set(self.sites)))

    def step_rows(self) -> int:
        """Bytes of a step's keys and value gradients, float32: N (K + V) a site."""
        return SINGLE * sum(self.rows * (k + v) for k, v in self.sites)

    def factors(self) -> int:
        """Bytes of the shifts, this step's and the last one's, float32: N (K + V) a site, or K V where N >= K."""
        return 2 * SINGLE * sum(self.rows * (k + v) if self.rows < k else k * v for k, v in self.sites)

    def solver(self) -> int:
        """Bytes that come and go: of the largest site M^2 twice and N (K + V), float64; 3 V^2 of a decomposition,
        float32; a copy of the statistics, to go back to."""
        systems = [2 * min(self.rows, k) ** 2 + self.rows * (k + v) for k, v in self.sites]
        whitening = max(3 * SINGLE * v * v for _, v in self.sites) if self.whitens else 0
        return max(DOUBLE * max(systems), whitening) + self.statistics()

    def flops(self) -> float:
        """Statistics, whitening, ridge and write.

        A site: the system 2 M N K, its factor M^3 / 3,
        the solve 2 M^2 V, the write 2 N K V; 2 N V^2 for the covariance and 4 N V^2 to whiten; 4 N (K + V) rank
        a block of a network; K^3 / 3 + 4 N K^2 of a system that is kept. A shape: 9 V^3.
        """
        n, total = self.rows, 0.0
        for k, v in self.sites:
            m = min(n, k)
            total += 2 * m * n * k + m**3 / 3 + 2 * m * m * v + 2 * n * k * v
            total += 6 * n * v * v * self.whitens
            total += 4 * n * (k + v) * self.rank * self.blocks + (k**3 + v**3) / 3 * self.metric
            total += (k**3 / 3 + 4 * n * k * k) * (self.squares > 0)
        return total + sum(EIGEN * v**3 * self.whitens for _, v in set(self.sites))


def step_costs(cfg: Config, model: PreTrainedModel, names: Sequence[str], shapes: Sequence[Shape]) -> str:
    """The lines on a step of dataset.n_edits edits at the sites `names`; "" without any, or rows."""
    edits, editor = cfg.dataset.n_edits, cfg.editor
    if not names or not isinstance(editor, EditorConfig):
        return ""
    rows = edits * (TOKENS if editor.token is TokenRows.all else ANSWER)
    whitens = editor.RunningMeanStd_mode is StatisticsMode.stable
    learned = (editor.rank, editor.n_blocks) if isinstance(editor, LearnedConfig) else (0, 0)
    squares = isinstance(editor, MemitConfig | RecursiveRidgeConfig) + isinstance(editor, AlphaEditConfig)
    work = Work(rows, shapes, whitens, *learned, isinstance(editor, MarginConfig), squares)
    on_gpu = cfg.model_device.startswith("cuda") or (cfg.model_device == "auto" and torch.cuda.is_available())
    dtype = pick_dtype(cfg.model, torch.device("cuda" if on_gpu else "cpu"))  # which need not be in this machine
    weights = model.num_parameters() * dtype.itemsize
    parts = {
        f"weights ({str(dtype).removeprefix('torch.')})": weights,
        "statistics": work.statistics(),
        "rows": work.step_rows(),
        "factors of shifts": work.factors(),
        "solving": work.solver(),
    }
    told = ", ".join(f"{name} {size / MIB:,.1f}" for name, size in parts.items())
    forward, capture = pass_flops(model, names, edits * TOKENS, edits * ANSWER)
    return (
        f"a step of {edits} edits by {editor.name} at what is chosen now, estimated for {TOKENS} tokens an edit, "
        f"{ANSWER} of them its answer ({rows:,} rows a site):\n"
        f"  MiB   {told}\n"
        f"  work  {(capture + work.flops()) / forward:.2f} forward passes over its prompts ({forward / 1e12:.3g} TFLOP "
        f"each): {capture / forward:.2f} forward and backward, {work.flops() / forward:.2f} statistics and solving"
    )


def pass_flops(model: PreTrainedModel, names: Sequence[str], tokens: int, rows: int) -> tuple[float, float]:
    """FLOPs of a forward pass, and of one with the backward pass that capture makes.

    Forward 2 P a token with P the parameters between embedding and head, and 2 P a row in the head. Backward as much
    for the head and for the layers from the lowest site up: there are no gradients of weights.
    """
    embedding, output = cast(Tensor, model.get_input_embeddings().weight), model.get_output_embeddings()
    head = 0 if output is None else cast(Tensor, output.weight).numel()
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    body = model.num_parameters() - embedding.numel() - (0 if tied else head)
    count = 1 + max((layers(name)[0] for name, _ in model.named_modules() if layers(name)), default=0)
    lowest = min((layers(name)[0] for name in names if layers(name)), default=0)
    forward = 2.0 * body * tokens + 2.0 * head * rows
    return forward, forward + 2.0 * body * tokens * (count - lowest) / count + 2.0 * head * rows
