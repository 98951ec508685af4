"""What a model answers: teacher-forced, which answer tokens are its first choice (docs/design.md, 1); and greedy
generation as a user would get it: no answer length given away, a natural stop, then compared as text.

Shape suffixes: B sequences, T positions, M answer positions, W vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from config.progress import Progress
from config.sizes import at_once
from data.base import Edit, Probe
from data.batches import IGNORED, Tokens, pad
from editor.capture import Inputs, answer_logits, tokens_of
from editor.frozen import look_ahead

KEY = "eval.tokens_per_batch"
ENOUGH = 256  # tokens that keep a processor busy: filling a batch up further is not worth padding
ENOUGH_ON_GPU = 4096
CHUNK = 256  # edits tokenized and sorted together: bounds memory, leaves little padding
CHUNK_ON_GPU = 2048  # so that the few of them that are generated for make a batch
ARTICLES = re.compile(r"\b(a|an|the)\b")
METRIC_OF = {"prompt": "ES", "rephrase": "GS", "unrelated": "LS", "persona": "person_score", "mhop": "mhop_score",
             "neighbour": "LS_neighbour"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answered:
    """One row's answer positions: the model's first choices, and which of them are right."""

    chosen_M: list[int]
    right_M: list[bool]

    @property
    def accuracy(self) -> float:
        """Share of the answer's tokens that are the first choice."""
        return sum(self.right_M) / len(self.right_M)

    @property
    def all_right(self) -> bool:
        """Whether every token of the answer is the first choice."""
        return all(self.right_M)


def probes(edit: Edit, *, mhop: bool, front: str = "") -> list[Probe]:
    """(metric, prompt, answer) of everything that measures one edit; kinds without a metric of their own are left out.

    A metric may have several prompts: their mean is the edit's number. `front` stands before each of them.
    """
    asked = [(METRIC_OF[kind], front + prompt, answer) for kind, prompt, answer in edit.probes() if kind in METRIC_OF]
    return asked if mhop else [probe for probe in asked if probe[0] != METRIC_OF["mhop"]]


def batched(rows: Sequence[Tokens], tokens_per_batch: int, enough: int = ENOUGH) -> Iterator[list[int]]:
    """Indices of `rows`, longest first, in batches whose padded size stays within the budget.

    A batch that holds `enough` tokens ends before a row that would be more than a tenth padding.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    batch: list[int] = []
    for index in order:
        longest = len(rows[batch[0]].input_ids) if batch else 0
        full = longest * (len(batch) + 1) > tokens_per_batch
        if batch and (full or (longest * len(batch) >= enough and len(rows[index].input_ids) < 0.9 * longest)):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


Look = Callable[[int, Tensor], None]
"""Shown each row's index and its answer logits [M, W], float32, on the model's device."""


@torch.inference_mode()
def answers(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    tokens_per_batch: int | str,
    look: Look | None = None,
    inputs: Inputs = tokens_of,
) -> list[Answered]:
    """What the model would choose at each row's answer positions, in the order of `rows`.

    A batch's choices are read once the next one is on its way: a GPU then never waits for the host.
    """
    found: dict[int, Answered] = {}
    waiting = list[tuple[list[int], Tensor]]()

    def read() -> None:
        for indices, chosen_M in waiting:
            chosen = iter(chosen_M.tolist())
            for index in indices:
                labels = [label for label in rows[index].labels if label != IGNORED]
                first = list(islice(chosen, len(labels)))
                found[index] = Answered(first, [a == b for a, b in zip(first, labels, strict=True)])
        waiting.clear()

    budget = at_once(KEY, tokens_per_batch, model.device.type)
    places = list(batched(rows, budget, ENOUGH if model.device.type == "cpu" else ENOUGH_ON_GPU))
    batches = [pad([rows[i] for i in indices]) for indices in places]
    look_ahead(inputs, batches)
    for indices, batch in zip(places, batches, strict=True):
        logits_MW, _ = answer_logits(model, batch, inputs)
        chosen_M = logits_MW.argmax(-1)
        if look is not None:
            counts = (batch.labels_BT != IGNORED).sum(1).tolist()
            for index, row_MW in zip(indices, logits_MW.split(counts), strict=True):
                look(index, row_MW)
        read()
        waiting.append((indices, chosen_M))
    read()
    return [found[index] for index in range(len(rows))]


Key = TypeVar("Key")
Item = TypeVar("Item")


def grouped(keys: Iterable[Key], items: Iterable[Item]) -> dict[Key, list[Item]]:
    """The items by key, both in the order in which they came."""
    groups: dict[Key, list[Item]] = {}
    for key, item in zip(keys, items, strict=True):
        groups.setdefault(key, []).append(item)
    return groups


def chunks(edits: Iterable[Item], total: int | None, label: str, device: torch.device) -> Iterator[list[Item]]:
    """The edits, CHUNK at a time, with a progress bar; more for a model on a GPU."""
    stream, size = iter(edits), CHUNK if device.type == "cpu" else CHUNK_ON_GPU
    with Progress(total=total, desc=label, unit="edit", disable=None, leave=False) as bar:
        while chunk := list(islice(stream, size)):
            yield chunk
            bar.update(len(chunk))


class AnswerEnds(StoppingCriteria):
    """A row is done at the first line break after some text, when first_line has all it needs."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: int) -> None:
        self.tokenizer, self.prompt = tokenizer, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Which rows [B] are done after the last token of input_ids [B, T], of which the first `prompt` are given."""
        texts = self.tokenizer.batch_decode(input_ids[:, self.prompt :], skip_special_tokens=True)
        return torch.tensor(["\n" in text.lstrip() for text in texts], device=input_ids.device)


def first_line(text: str) -> str:
    """The answer in a continuation: its first line with something on it."""
    return text.strip().split("\n")[0].strip()


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    tokens_per_batch: int | str,
) -> list[str]:
    """Greedy answers to tokenized prompts, in their order; batches are padded on the left.

    An answer ends with the model's own end token, at a line break, or after `max_new_tokens`.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found: dict[int, str] = {}
    budget = at_once(KEY, tokens_per_batch, model.device.type)
    while order:
        rows = max(1, budget // (len(prompts[order[0]]) + max_new_tokens))
        indices, order = order[:rows], order[rows:]
        texts = _generate_batch(model, tokenizer, [prompts[i] for i in indices], max_new_tokens)
        found |= dict(zip(indices, texts, strict=True))
    return [found[i] for i in range(len(prompts))]


def _generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], max_new_tokens: int
) -> list[str]:
    longest = max(map(len, prompts))
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    padding = tokenizer.pad_token_id
    if padding is None:
        padding = (ends[0] if isinstance(ends, list) else ends) or 0
    ids_BT = torch.tensor([[padding] * (longest - len(ids)) + ids for ids in prompts], device=model.device)
    attention_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    settings = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=padding
    )
    stop = AnswerEnds(tokenizer, longest)
    generating: Any = model  # transformers types generate as a tensor
    output_BT = generating.generate(
        input_ids=ids_BT,
        attention_mask=attention_BT,
        generation_config=settings,
        stopping_criteria=StoppingCriteriaList([stop]),
    )
    texts = tokenizer.batch_decode(output_BT[:, longest:], skip_special_tokens=True)
    return [first_line(text) for text in texts]


def normalized(text: str) -> str:
    """Compatible characters made one, lower case, no punctuation, no articles, single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(" " if unicodedata.category(char).startswith("P") else char for char in text)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact(answer: str, target: str) -> bool:
    """Whether the answer is the target, after normalization where it leaves something of the target."""
    wanted = normalized(target)
    return normalized(answer) == wanted if wanted else answer.strip() == target.strip()


def contains(answer: str, target: str) -> bool:
    """Whether the target stands in the answer as whole words, after normalization."""
    wanted = normalized(target)
    return f" {wanted} " in f" {normalized(answer)} " if wanted else target.strip() in answer
