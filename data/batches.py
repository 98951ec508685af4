"""From edits to token ids, as dataset.prompt_format shows them, and to padded micro-batches (docs/design.md, 2.1).

Shape suffixes: B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from config.check import ConfigError
from config.schema import PromptFormat

from .base import DataError, Edit, place, shown
from .source import Fits

IGNORED = -100
NO_TOKEN = "has no token in this model's tokenizer"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One prompt and its answer: the input without the last answer token, and what each position predicts."""

    input_ids: list[int]
    labels: list[int]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; from the host to a GPU through pinned memory, without waiting."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded sequences: inputs with id 0 and attention 0, labels with -100."""

    input_ids_BT: Tensor
    attention_BT: Tensor
    labels_BT: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device; copies to a GPU do not make the host wait."""
        return Batch(*(to_device(t, device) for t in (self.input_ids_BT, self.attention_BT, self.labels_BT)))


@dataclass(frozen=True, slots=True)
class StepBatches:
    """The micro-batches of one sequential step, each kind sorted and cut on its own."""

    edit: list[Batch]
    rephrase: list[Batch]
    unrelated: list[Batch]
    edits: Sequence[Edit] = ()


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


def check_prompt_format(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat, model: str) -> None:
    """Refuse chat without a chat template that works, by a ConfigError that names the key and the model."""
    if prompt_format is PromptFormat.chat:
        right = "use raw or qa, or an instruction-tuned model"
        if not tokenizer.chat_template:
            raise ConfigError(f"dataset.prompt_format=chat: the tokenizer of {model} has no chat template; {right}")
        try:
            if "STABLE" not in _written(tokenizer, "STABLE", prompt_format):
                raise ValueError("it leaves the prompt out")
        except Exception as error:  # a template may fail in any way
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ConfigError(
                f"dataset.prompt_format=chat: the chat template of {model} does not work ({said}); {right}"
            ) from error


def _written(tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_format: PromptFormat) -> str:
    if prompt_format is PromptFormat.qa:
        return f"Question: {prompt}\nAnswer:"
    if prompt_format is PromptFormat.chat:
        turn = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
    return prompt


def tokenize(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], prompt_format: PromptFormat = PromptFormat.raw
) -> list[Tokens]:
    """Tokenize (prompt, answer) pairs as the format shows them: prompt and answer apart.

    Raises DataError for a prompt or an answer without any token.
    """
    prompts = prompt_ids(tokenizer, [prompt for prompt, _ in pairs], prompt_format)
    answers = answer_ids(tokenizer, [answer for _, answer in pairs], prompt_format)
    rows = []
    for pair, prompt, answer in zip(pairs, prompts, answers, strict=True):
        if not prompt or not answer:
            empty = f"answer {pair[1]!r}" if prompt else f"prompt {pair[0]!r}"
            raise DataError(f"{empty} {NO_TOKEN}")
        rows.append(Tokens(prompt + answer[:-1], [IGNORED] * (len(prompt) - 1) + answer))
    return rows


def context_check(
    tokenizer: PreTrainedTokenizerBase,
    context: int | None,
    prompt_format: PromptFormat = PromptFormat.raw,
    in_front: Callable[[str, str], str] = lambda prompt, answer: "",
) -> Fits:
    """A check that every prompt of an edit has tokens for its answer and fits the model's context.

    `in_front` makes of an edit's prompt and answer what will stand before all of its prompts (AnyEditor.in_front).
    """
    # A token stands for at least one byte, so most prompts need no tokenizing to be known to fit.
    # The byte of "a" is that of the space before the answer.
    frame = len(_written(tokenizer, "a", prompt_format).encode()) + len(special_prefix(tokenizer))

    def complaint(edit: Edit, empty: set[str]) -> DataError | None:
        front = in_front(edit.prompt, edit.answer)
        for _, asked, answer in edit.probes():
            prompt = front + asked
            if answer in empty:
                return DataError(f"{place(edit.row)}: answer {shown(answer)} {NO_TOKEN}")
            if context is None or frame + len(prompt.encode()) + len(answer.encode()) - 1 <= context:
                continue
            length = len(tokenize(tokenizer, [(prompt, answer)], prompt_format)[0].input_ids)
            if length > context:
                return DataError(
                    f"{place(edit.row)}: prompt {shown(prompt)} has {length} tokens with its answer; "
                    f"the model's context is {context}"
                )
        return None

    def check(edits: Sequence[Edit]) -> list[DataError | None]:
        answers = list({answer for edit in edits for *_, answer in edit.probes()})
        ids = answer_ids(tokenizer, answers, prompt_format)
        empty = {answer for answer, tokens in zip(answers, ids, strict=True) if not tokens}
        return [complaint(edit, empty) for edit in edits]

    return check


def pad(rows: Sequence[Tokens]) -> Batch:
    """One batch of the rows in their order."""
    longest = max(len(row.input_ids) for row in rows)
    lengths = [longest - len(row.input_ids) for row in rows]
    return Batch(
        torch.tensor([row.input_ids + [0] * gap for row, gap in zip(rows, lengths, strict=True)]),
        torch.tensor([[1] * len(row.input_ids) + [0] * gap for row, gap in zip(rows, lengths, strict=True)]),
        torch.tensor([row.labels + [IGNORED] * gap for row, gap in zip(rows, lengths, strict=True)]),
    )


def join(batches: Sequence[Batch]) -> Batch:
    """The sequences of several batches as one, padded to the longest."""
    longest = max(batch.input_ids_BT.shape[1] for batch in batches)

    def joined(tensors: Sequence[Tensor], value: int) -> Tensor:
        return torch.cat([torch.nn.functional.pad(t, (0, longest - t.shape[1]), value=value) for t in tensors])

    return Batch(
        joined([batch.input_ids_BT for batch in batches], 0),
        joined([batch.attention_BT for batch in batches], 0),
        joined([batch.labels_BT for batch in batches], IGNORED),
    )


def passes(batches: Sequence[Batch], tokens: int) -> Iterator[list[Batch]]:
    """Neighbouring micro-batches in groups that hold at most `tokens` padded tokens, or a single micro-batch."""
    group: list[Batch] = []
    for batch in batches:
        longest = max(other.input_ids_BT.shape[1] for other in [*group, batch])
        if group and longest * sum(len(other.input_ids_BT) for other in [*group, batch]) > tokens:
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


def micro_batches(rows: Sequence[Tokens], size: int) -> list[Batch]:
    """Sort by length, longest first (stable), and cut into micro-batches of `size`."""
    ordered = sorted(rows, key=lambda row: -len(row.input_ids))
    return [pad(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def step_batches(
    tokenizer: PreTrainedTokenizerBase,
    edits: Sequence[Edit],
    size: int,
    prompt_format: PromptFormat = PromptFormat.raw,
    *,
    trains: bool = True,
) -> StepBatches:
    """The micro-batches of one step's edits; edits without a rephrased or unrelated prompt have no row there.

    These two are for training: none are made where nobody `trains`.
    Of several rephrased or unrelated prompts learned editors train on the first, as the published program does: a
    record weighs the same however many it has, and a step costs the same.
    """
    asked = [edit.asked() for edit in edits]

    def batches(kind: str) -> list[Batch]:
        pairs = [pairs[kind] for pairs in asked if kind in pairs and (trains or kind == "prompt")]
        return micro_batches(tokenize(tokenizer, pairs, prompt_format), size)

    return StepBatches(batches("prompt"), batches("rephrase"), batches("unrelated"), edits)


def steps(edits: Iterator[Edit], n_edits: int, *, rest: bool = False) -> Iterator[list[Edit]]:
    """Cut a stream of edits into the lists that one sequential step writes; an incomplete last one only with `rest`."""
    while (step := list(islice(edits, n_edits))) and (rest or len(step) == n_edits):
        yield step
