"""Probes that need templates only: what is asked of an edit beside the data's prompts (docs/evaluation.md)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from config.schema import Probe
from data.base import Edit
from data.base import Probe as Asked
from data.source import RecordFile
from lifelong.answers import at_positions, drawn, normalized

POOL = 1000  # targets of other edits that choices are drawn from
ROUNDING = 1e-4  # nats: a target that rose by less under negation did not rise
TOOK = "_took"
Options = list[tuple[str, str]]


class Probing:
    """The probes of eval.probes, over the edits of a run.

    A text probe is a metric like those of the data's prompts. The others compare log-likelihoods of complete answers:
    `options` says which, `read` what they mean.
    """

    def __init__(self, names: Sequence[Probe], edits: RecordFile | Sequence[Edit], seed: int) -> None:
        self.names, self.edits, self.seed = set(names), edits, seed

    @cached_property
    def pool(self) -> list[str]:
        """Targets of edits spread over the run, no two the same after normalization."""
        some = at_positions(self.edits, drawn(len(self.edits), POOL, self.seed))
        return list({_plain(edit.answer): edit.answer for _, edit in some}.values())

    def texts(self, edit: Edit) -> Iterator[Asked]:
        """(metric, prompt, answer): locality with the edit told in the context."""
        if Probe.distracting in self.names:
            asked = edit.probes()
            unrelated = [probe for probe in asked if probe[0] == "unrelated"]
            for _, prompt, answer in unrelated or [probe for probe in asked if probe[0] == "neighbour"]:
                yield "LS_distracting", f"{told(edit)} {prompt}", answer

    def options(self, index: int, edit: Edit) -> dict[str, Options]:
        """By probe the (prompt, answer) pairs whose likelihoods are compared, the right one first."""
        found: dict[str, Options] = {}
        if Probe.verification in self.names:
            found["verification"] = [(f"{told(edit)} True or false?", answer) for answer in ("True", "False")]
        if Probe.choice in self.names and len(others := self._others(index, edit)) == 3:
            found["choice"] = [(edit.prompt, answer) for answer in (edit.answer, *others)]
        if Probe.negation in self.names:
            found["negation"] = [(f"It is not true that {edit.prompt}", edit.answer)]
        return found

    def _others(self, index: int, edit: Edit) -> list[str]:
        """The old answer and targets of other edits, three in all if there are so many."""
        old = [] if edit.old_answer is None or _plain(edit.old_answer) == _plain(edit.answer) else [edit.old_answer]
        taken = {_plain(answer) for answer in (edit.answer, *edit.aliases, *old)}
        free = [answer for answer in self.pool if _plain(answer) not in taken]
        wanted = min(3 - len(old), len(free))
        return [*old, *random.Random(f"{self.seed} {index}").sample(free, wanted)]


def told(edit: Edit) -> str:
    """The edit as a sentence."""
    return f"{edit.prompt} {edit.answer.rstrip('.')}."


def read(name: str, options: Options, log_p: Sequence[float]) -> dict[str, Any]:
    """What the log-likelihoods of a probe's options say: `right` of a choice, the probability `p` of a lone one."""
    found: dict[str, Any] = {"answers": [answer for _, answer in options], "log_p": list(log_p)}
    if len(options) == 1:
        return found | {"p": math.exp(log_p[0])}
    return found | {"right": log_p[0] > max(log_p[1:])}


def numbers(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(ending of the metric's name, value) of one of `read`'s."""
    if "right" in found:
        yield "", found["right"]
    if "p" in found:
        yield "_p", found["p"]


def not_raised(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the target is no likelier than it was, under negation."""
    return after["log_p"][0] <= before["log_p"][0] + ROUNDING


def _plain(answer: str) -> str:
    return normalized(answer) or answer.strip()
