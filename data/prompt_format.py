"""Which format prompts are shown in, settled before anything is tokenized."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from config.schema import DatasetConfig, PromptFormat

from .batches import check_prompt_format


def settled(dataset: DatasetConfig, tokenizer: PreTrainedTokenizerBase, model: str) -> PromptFormat:
    """The format of dataset.prompt_format: of auto, chat where there is a chat template and texts need not be exact.

    Raises:
        ConfigError: chat without a chat template that works; names the key and the model.
    """
    asked = dataset.prompt_format
    if asked is PromptFormat.auto:
        asked = PromptFormat.chat if tokenizer.chat_template and not dataset.exact else PromptFormat.raw
    check_prompt_format(tokenizer, asked, model)
    return asked
