"""Probes that need templates only: what is asked of an edit beside the data's prompts (docs/evaluation.md)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from config.schema import Probe
from data.base import Edit
from data.base import Probe as Asked
from data.batches import answer_ids, context_check
from lifelong.answers import normalized
from lifelong.scored_model import ScoredModel

POOL = 1000  # targets of other edits that choices are drawn from
ROUNDING = 1e-4  # nats: a target that rose by less under negation did not rise
Pair = tuple[str, str]
"""A prompt and an answer."""


class Probing:
    """The probes of eval.probes, over the edits of a run.

    A text probe is a metric like those of the data's prompts. The others compare log-likelihoods of complete answers:
    `options` says which, `read` what they mean. What would not fit the model's context is not asked.
    """

    def __init__(self, session: ScoredModel, some: Callable[[int], Iterable[Edit]]) -> None:
        """`some` gives edits spread over the run."""
        self.names, self.seed = set(session.cfg.eval.probes), session.cfg.seed
        context = getattr(session.model.config, "max_position_embeddings", None)
        self.fits = context_check(session.tokenizer, context, session.cfg.dataset.prompt_format)
        self.some = some

    @cached_property
    def pool(self) -> dict[str, str]:
        """Targets of edits spread over the run, by what normalization leaves of them."""
        return {_plain(edit.answer): edit.answer for edit in self.some(POOL)}

    def texts(self, edit: Edit, front: str = "") -> Iterator[Asked]:
        """(metric, prompt, answer): locality with the edit told in the context; `front` stands before all prompts."""
        if Probe.distracting in self.names:
            asked = edit.probes()
            unrelated = [probe for probe in asked if probe[0] == "unrelated"]
            for _, prompt, answer in unrelated or [probe for probe in asked if probe[0] == "neighbour"]:
                if self._fit([(distracted := f"{front}{told(edit)} {prompt}", answer)]):
                    yield "LS_distracting", distracted, answer

    def options(self, index: int, edit: Edit, front: str = "") -> dict[str, list[Pair]]:
        """By probe the (prompt, answer) pairs whose likelihoods are compared, the right one first."""
        found: dict[str, list[Pair]] = {}
        if Probe.verification in self.names:
            found["verification"] = [(f"{told(edit)} True or false?", answer) for answer in ("True", "False")]
        if Probe.choice in self.names and len(others := self._others(index, edit)) == 3:
            found["choice"] = [(edit.prompt, answer) for answer in (edit.answer, *others)]
        if Probe.negation in self.names:
            found["negation"] = [(f"It is not true that {edit.prompt}", edit.answer)]
        fronted = {name: [(front + prompt, answer) for prompt, answer in pairs] for name, pairs in found.items()}
        return {name: pairs for name, pairs in fronted.items() if self._fit(pairs)}

    def _fit(self, pairs: Sequence[Pair]) -> bool:
        return not any(self.fits([Edit(0, *pair, None, None, None) for pair in pairs]))

    def _others(self, index: int, edit: Edit) -> list[str]:
        """The old answer and targets of other edits, three in all if there are so many."""
        old = [] if edit.old_answer is None or _plain(edit.old_answer) == _plain(edit.answer) else [edit.old_answer]
        taken = {_plain(answer) for answer in (edit.answer, *edit.aliases, *old)}
        free = [answer for plain, answer in self.pool.items() if plain not in taken]
        wanted = min(3 - len(old), len(free))
        return [*old, *random.Random(f"{self.seed} {index}").sample(free, wanted)]


def told(edit: Edit) -> str:
    """The edit as a sentence."""
    return f"{edit.prompt} {edit.answer.rstrip('.')}."


class Likelihoods:
    """Log-likelihoods of complete answers (the sum over their tokens), seen while rows are answered."""

    def __init__(self, session: ScoredModel, pairs: Sequence[Pair], rows: Collection[int]) -> None:
        """Of the `rows` of pairs."""
        answers = [pairs[row][1] for row in rows]
        ids = answer_ids(session.tokenizer, answers, session.cfg.dataset.prompt_format)
        self.labels, self.log_p = dict(zip(rows, ids, strict=True)), dict[int, float]()

    def look(self, row: int, logits_MW: Tensor) -> None:
        """Take in the logits [M, W] of a row."""
        if labels := self.labels.get(row):
            self.log_p[row] = logits_MW.log_softmax(-1)[range(len(labels)), labels].double().sum().item()


def read(options: Sequence[Pair], log_p: Sequence[float]) -> dict[str, Any]:
    """What the log-likelihoods of a probe's options say: `right` of a choice, the probability `p` of a lone one."""
    found: dict[str, Any] = {"answers": [answer for _, answer in options], "log_p": list(log_p)}
    if len(options) == 1:
        return found | {"p": math.exp(log_p[0])}
    return found | {"right": log_p[0] > max(log_p[1:])}


def not_raised(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the target is no likelier than it was, under negation."""
    return after["log_p"][0] <= before["log_p"][0] + ROUNDING


def _plain(answer: str) -> str:
    return normalized(answer) or answer.strip()
