"""Keys that a configuration may leave open, settled before a model loads: dataset.prompt_format=auto, num_seq=null."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from config.check import check_every
from config.schema import Config, PromptFormat
from data.prompt_format import settled

log = logging.getLogger(__name__)


def settle_format(cfg: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    """Put the format that prompts are shown in in the place of auto, and say so.

    Raises:
        ConfigError: chat without a chat template that works.
    """
    was = cfg.dataset.prompt_format
    cfg.dataset.prompt_format = settled(cfg.dataset, tokenizer, cfg.model.name_or_path)
    if was is PromptFormat.auto:
        log.info("dataset.prompt_format=auto: prompts are shown as %s", cfg.dataset.prompt_format.value)


def settle_steps(cfg: Config, records: int) -> None:
    """Put the number of steps that these records make in the place of num_seq, and say so where it was another.

    Raises:
        ConfigError: eval.every is more.
    """
    was, n_edits = cfg.num_seq, cfg.dataset.n_edits
    cfg.num_seq = -(-records // n_edits)
    if was != cfg.num_seq:
        limit = "" if was is None else f" (dataset.limit={cfg.dataset.limit} in the place of num_seq={was})"
        log.info("num_seq=%d: %d records, up to %d in a step%s", cfg.num_seq, records, n_edits, limit)
    check_every(cfg)


def as_settled(asked: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in JSON's types with its open keys as those of a run that was done with it: `found`."""
    known, dataset = dict(asked), dict(asked["dataset"])
    if known["num_seq"] is None or dataset.get("limit") is not None:
        known["num_seq"] = found["num_seq"]
    if dataset["prompt_format"] == PromptFormat.auto:
        dataset["prompt_format"] = found["dataset"]["prompt_format"]
    return known | {"dataset": dataset}
