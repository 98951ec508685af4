"""How a prompt and its answer are shown to a model, as token ids (dataset.prompt_format).

| format | prompt | answer |
| --- | --- | --- |
| raw | as it stands | " " + answer |
| qa | "Question: " + prompt + newline + "Answer:" | " " + answer |
| chat | a user's turn in the model's own chat template, the assistant's turn opened | as it stands |
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from config.check import ConfigError
from config.schema import PromptFormat


@lru_cache(maxsize=8)
def special_prefix(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids that the tokenizer puts before a text (BOS or none); what it would append is left out."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return tuple(full[:start])
    return ()


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], prompt_format: PromptFormat = PromptFormat.raw
) -> list[list[int]]:
    """The ids of each prompt as the model sees it, special tokens included: what generation starts from."""
    if not prompts:
        return []
    # a chat template writes its own special tokens, BOS among them
    prefix = [] if prompt_format is PromptFormat.chat else list(special_prefix(tokenizer))
    written = [_written(tokenizer, prompt, prompt_format) for prompt in prompts]
    return [prefix + ids for ids in tokenizer(written, add_special_tokens=False)["input_ids"]]


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, answers: Sequence[str], prompt_format: PromptFormat = PromptFormat.raw
) -> list[list[int]]:
    """The ids of each answer as it follows its prompt; no special token."""
    if not answers:
        return []
    space = "" if prompt_format is PromptFormat.chat else " "
    return tokenizer([space + answer for answer in answers], add_special_tokens=False)["input_ids"]


def longest_frame(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat) -> int:
    """The most tokens that the format adds to a prompt and its answer: a token stands for at least one byte."""
    around = len(_written(tokenizer, "a", prompt_format).encode()) - 1
    return around + len(special_prefix(tokenizer)) + len(" ")


def check_prompt_format(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat, model: str) -> None:
    """Refuse a format that the model's tokenizer cannot write.

    Raises:
        ConfigError: chat, and the tokenizer has no chat template; names the key and the model.
    """
    if prompt_format is PromptFormat.chat and not tokenizer.chat_template:
        raise ConfigError(
            f"dataset.prompt_format=chat: the tokenizer of {model} has no chat template; use raw or qa, "
            "or an instruction-tuned model"
        )


def _written(tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_format: PromptFormat) -> str:
    if prompt_format is PromptFormat.qa:
        return f"Question: {prompt}\nAnswer:"
    if prompt_format is PromptFormat.chat:
        turn = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
    return prompt
