"""The same prompts put to an edited model and to the model that it was made from."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError
from config.schema import ModelConfig, Precision, PromptFormat
from data.base import HALF_PAIR, DataError
from data.base import shown as cut
from data.batches import check_prompt_format, prompt_ids
from exports.card import front_matter, origin
from exports.delta import base_config, is_delta, load_base, read_delta, read_weights
from files import printable
from model import load_model, load_tokenizer, model_config

NO_BASE = "none"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how."""

    prompts: Sequence[str]
    prompt_format: PromptFormat
    max_new_tokens: int
    device: torch.device


@dataclass(frozen=True, slots=True)
class Answers:
    """The continuations in the order of the prompts; base is None where there is no base, and `note` says why."""

    edited: list[str]
    base: list[str] | None
    base_name: str | None
    note: str = ""


def ask(name: str, question: Question, base: str | None = None) -> Answers:
    """Greedy answers of a saved model (folder, delta, hub id or embedded:NAME) and of its base.

    The format auto is the one that the card says facts were edited in, raw where no card says it.
    The base is the one that the card or the delta names unless given; "none" leaves it out.

    Raises:
        ConfigError: a model that cannot be opened, a base that is not the delta's.
        DataError: a prompt that cannot be asked in this format.
    """
    if question.prompt_format is PromptFormat.auto:
        named = PromptFormat.__members__.get(str(front_matter(Path(name).expanduser()).get("prompt_format")))
        question = replace(question, prompt_format=named or PromptFormat.raw)
    return _ask_delta(name, question, base) if is_delta(name) else _ask_whole(name, question, base)


def _ask_delta(folder: str, question: Question, base: str | None) -> Answers:
    delta = read_delta(folder)
    new = read_weights(delta)
    source = delta.base if base in (None, NO_BASE) else base
    tokenizer, asked = _asked(base_config(delta, source), question)
    model = load_base(delta, source, question.device)
    if question.device.type == "cpu":
        model.float()  # exact, and many times faster than bfloat16 on a CPU
    before = None if base == NO_BASE else answer(model, tokenizer, asked, question.max_new_tokens)
    model.load_state_dict(new, strict=False)  # the changed weights alone
    after = answer(model, tokenizer, asked, question.max_new_tokens)
    return Answers(after, before, None if base == NO_BASE else source)


def _ask_whole(name: str, question: Question, base: str | None) -> Answers:
    cfg = ModelConfig(name_or_path=name, edit_modules=[])
    cfg.precision = _saved_precision(cfg, question.device)
    edited = _ask_one(cfg, question)
    said = front_matter(Path(name).expanduser()).get("edited_from")
    source = base or (said if isinstance(said, str) and said != origin(name) else None)
    if source in (None, NO_BASE):
        return Answers(edited, None, None, "" if base else "no card names the base; --base BASE asks it too")
    try:
        other = ModelConfig(name_or_path=source, precision=cfg.precision, edit_modules=[])
        return Answers(edited, _ask_one(other, question), source)
    except ConfigError as error:
        if base:
            raise
        return Answers(edited, None, None, f"the base cannot be asked: {error}")


def _saved_precision(cfg: ModelConfig, device: torch.device) -> Precision:
    """The dtype that the weights were saved in; float32 on the CPU, which is exact and faster there."""
    if device.type == "cpu":
        return Precision.float32
    return Precision.__members__.get(str(model_config(cfg).dtype).removeprefix("torch."), Precision.float32)


def _ask_one(cfg: ModelConfig, question: Question) -> list[str]:
    tokenizer, asked = _asked(cfg, question)
    answers = answer(load_model(cfg, question.device), tokenizer, asked, question.max_new_tokens)
    gc.collect()  # the two models of a comparison are never in memory together
    return answers


def _asked(cfg: ModelConfig, question: Question) -> tuple[PreTrainedTokenizerBase, list[list[int]]]:
    """The tokenizer and each prompt's ids, once it is known that the tokenizer can write them and that they fit."""
    tokenizer, context = load_tokenizer(cfg), getattr(model_config(cfg), "max_position_embeddings", None)
    check_prompt_format(tokenizer, question.prompt_format, cfg.name_or_path)
    for prompt in question.prompts:
        if HALF_PAIR.search(prompt):
            raise DataError(f"prompt {cut(prompt)} holds half a surrogate pair; it must be Unicode text")
    asked = prompt_ids(tokenizer, question.prompts, question.prompt_format)
    for prompt, bare, ids in zip(question.prompts, prompt_ids(tokenizer, question.prompts), asked, strict=True):
        if not bare:
            raise DataError(f"prompt {prompt!r} has no token in this model's tokenizer")
        if context and len(ids) + question.max_new_tokens > context:
            raise DataError(
                f"prompt {cut(prompt)} has {len(ids)} tokens; with --max-new-tokens {question.max_new_tokens} that is "
                f"more than the model's context of {context}: shorten it"
            )
    return tokenizer, asked


@torch.inference_mode()
def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Sequence[int]], longest: int
) -> list[str]:
    """Greedy continuations, one prompt at a time: no padding, so exactly what the model gives a lone prompt."""
    ends = model.generation_config.eos_token_id
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=longest,
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        pad_token_id=0,
    )
    answers: list[str] = []
    generating: Any = model  # transformers types generate as a tensor
    for ids in asked:
        ids_BT = torch.tensor([ids], device=model.device)
        output_BT = generating.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), generation_config=settings)
        answers.append(str(tokenizer.decode(output_BT[0, len(ids) :], skip_special_tokens=True)))
    return answers


def shown(prompts: Sequence[str], answers: Answers) -> str:
    """Prompt, base's answer and edited answer under each other; later lines of an answer are indented."""
    columns = {"prompt": prompts, "base": answers.base, "edited": answers.edited}
    told = [[_line(label, text) for text in texts] for label, texts in columns.items() if texts is not None]
    return "\n\n".join("\n".join(block) for block in zip(*told, strict=True))


def _line(label: str, text: str) -> str:
    return f"{label:<8}" + indent(printable(text.strip()) or "(nothing)", " " * 8).lstrip()
