"""What keys may be: words to choose from, and ranges of numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from enum import StrEnum
from typing import Any

RANGE = "range"
"""The key of a field's metadata that says which numbers it takes (config/check.py)."""


def within(numbers: str) -> Callable[[Any], Any]:
    """Fields that must be finite and in a range; each is called with its default."""
    return lambda default: field(default=default, metadata={RANGE: numbers})


above_zero = within("above 0")
at_least_zero = within("0 or more")
AUTO = "auto"
"""Of how much is handled at once: what suits the device."""
COUNT_OR_AUTO = {RANGE: f"above 0, or {AUTO}"}
"""The metadata of such fields, which are typed Any: OmegaConf cannot merge unions."""

StatisticsMode = StrEnum("StatisticsMode", ["stable", "original", "none"])
"""How rows are normalized: value gradients whitened (stable), per coordinate (original), or raw rows (none)."""

PreheatMode = StrEnum("PreheatMode", ["start", "q1", "middle", "q3", "end", "none"])
"""Where in the sequence the warm-up steps run."""

TokenRows = StrEnum("TokenRows", ["ans", "all"])
"""Which positions give keys and value gradients: the answer's, or every token's."""

FloorMode = StrEnum("FloorMode", ["absolute", "relative"])
"""Whether editor.whitening_floor is an eigenvalue or a share of the largest eigenvalue."""

WhiteningSolver = StrEnum("WhiteningSolver", ["eigh", "subspace", "auto"])
"""Whether whitening decomposes the covariance whole, or searches for the eigenpairs above the floor (auto: by d_v)."""

MetricText = StrEnum("MetricText", ["own", "everyday", "records"])
"""The text that editor=margin's metric is made of: the model's own; its answers to everyday questions, or to records
that are not edited, too."""

Precision = StrEnum("Precision", ["auto", "float32", "bfloat16", "float16"])
"""Data type of the loaded weights; auto follows model.half."""

BadRow = StrEnum("BadRow", ["error", "skip"])
"""What happens to a record that cannot be used."""

PromptFormat = StrEnum("PromptFormat", ["raw", "qa", "chat", "auto"])
"""How a prompt is shown to the model: as it stands, as a question with "Answer:", or by its chat template.

auto is the last where the tokenizer has one and the data set is not `exact`, else the first (data/prompt_format.py)."""

Export = StrEnum("Export", ["full", "delta"])
"""What model_cache saves: the whole model, or only the changed weights with the base's identity."""

WarmUp = StrEnum("WarmUp", ["num_seq_zsre", "num_seq_wikibigedit"])
"""The key that says how many warm-up steps run."""

Locality = StrEnum("Locality", ["random", "neighbour"])
"""What prompts whose answers must stay are: questions about anything, or near neighbours of the edited fact."""

DownstreamBackend = StrEnum("DownstreamBackend", ["builtin", "lm_eval", "lm_eval_rows"])
"""What runs the downstream tasks: this program, or lm-evaluation-harness its own tasks, or our rows."""

Over = StrEnum("Over", ["step", "all"])
"""What editor=finetune trains on at every step: that step's edits, or all edits so far."""

Probe = StrEnum("Probe", ["distracting", "verification", "choice", "negation", "took"])
"""What is asked of every edit beside the data's own prompts (docs/evaluation.md)."""

Best = StrEnum("Best", ["gain", "published"])
"""By what a sweep or a search says which is best (report.metrics.RULES)."""

WandbMode = StrEnum("WandbMode", ["offline", "online", "disabled"])
"""Whether Weights & Biases keeps its files in the run directory, sends them, or is left out."""
