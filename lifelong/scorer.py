"""Scores of edits with the model as it stands: teacher-forced for all, generated for a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from config.schema import Config
from data.base import Edit
from data.batches import prompt_ids, tokenize
from data.source import RecordFile
from lifelong.answers import Answered, answers, chunks, probes
from lifelong.generation import contains, exact, generate
from lifelong.sample import at_positions, drawn
from lifelong.session import Session
from report.metrics import Tally

Scores = dict[str, dict[str, Any]]
"""What one edit's prompts gave, by metric: ids, prediction, tokens, all; generated, exact, contain where generated."""


class Scorer:
    """Scores the edits of a run; `between` is called between chunks of edits."""

    def __init__(self, cfg: Config, session: Session, edits: RecordFile, between: Callable[[], None]) -> None:
        self.cfg, self.model, self.tokenizer, self.edits = cfg, session.model, session.tokenizer, edits
        self.inputs, self.between = session.inputs, between
        self.chosen = drawn(len(edits), cfg.eval.edits, cfg.seed)
        self.examples = self.some(cfg.eval.examples)
        self.generated = set(self.some(cfg.eval.generate_sample)) if cfg.eval.generate else set()

    def some(self, size: int | None) -> list[int]:
        """Positions of `size` of the edits that are scored, the same at every call."""
        return [self.chosen[i] for i in drawn(len(self.chosen), size, self.cfg.seed)]

    def scored(self, label: str, tally: Tally) -> Iterator[tuple[int, Edit, Scores]]:
        """The edits that are scored, each with its position and scores, which the tally takes in."""
        for chunk in chunks(at_positions(self.edits, self.chosen), len(self.chosen), label):
            for (index, edit), scores in zip(chunk, self._score(chunk), strict=True):
                for metric, found in scores.items():
                    count(tally, metric, found, generated=index in self.generated)
                yield index, edit, scores
            self.between()

    def _score(self, edits: list[tuple[int, Edit]]) -> list[Scores]:
        asked = [
            (position, metric, prompt, answer)
            for position, (_, edit) in enumerate(edits)
            for metric, (prompt, answer) in probes(edit, mhop=self.cfg.dataset.eval_mhop).items()
        ]
        style, budget = self.cfg.dataset.prompt_format, self.cfg.eval.tokens_per_batch
        rows = tokenize(self.tokenizer, [(prompt, answer) for _, _, prompt, answer in asked], style)
        scores: list[Scores] = [{} for _ in edits]
        for (position, metric, _, _), answered in zip(
            asked, answers(self.model, rows, budget, inputs=self.inputs), strict=True
        ):
            scores[position][metric] = self._teacher_forced(answered)
        spoken = [entry for entry in asked if self._is_generated(edits[entry[0]][0], entry[1])]
        prompts = prompt_ids(self.tokenizer, [prompt for _, _, prompt, _ in spoken], style)
        texts = generate(
            self.model, self.tokenizer, prompts,
            max_new_tokens=self.cfg.eval.max_new_tokens, tokens_per_batch=budget,
        )  # fmt: skip
        for (position, metric, _, answer), text in zip(spoken, texts, strict=True):
            said = {"generated": text, "exact": exact(text, answer), "contain": contains(text, answer)}
            scores[position][metric] |= said
        return scores

    def _teacher_forced(self, answered: Answered) -> dict[str, Any]:
        prediction = str(self.tokenizer.decode(answered.chosen_M)).strip()
        return {
            "ids": answered.chosen_M,
            "prediction": prediction,
            "tokens": answered.accuracy,
            "all": answered.all_right,
        }

    def _is_generated(self, index: int, metric: str) -> bool:
        return (index in self.generated and metric in ("ES", "GS", "LS")) or (index in self.examples and metric == "ES")

    def measure_knowns(self, knowns: Sequence[Edit], tally: Tally) -> None:
        """KS over known facts, into the tally."""
        pairs = [(fact.prompt, fact.answer.strip()) for fact in knowns]
        rows = tokenize(self.tokenizer, pairs, self.cfg.dataset.prompt_format)
        for answered in answers(self.model, rows, self.cfg.eval.tokens_per_batch, inputs=self.inputs):
            tally.add("KS", answered.accuracy)
            tally.add("KS_all", answered.all_right)

    def look_at(self, sample: list[int], look: Callable[[int, Tensor], None]) -> None:
        """Show the logits at the unrelated answers of the sample."""
        edits = dict(at_positions(self.edits, sample))
        pairs = {i: (e.unrelated, e.unrelated_answer) for i, e in edits.items() if e.unrelated and e.unrelated_answer}
        rows = tokenize(self.tokenizer, list(pairs.values()), self.cfg.dataset.prompt_format)
        indices = list(pairs)
        budget = self.cfg.eval.tokens_per_batch
        answers(self.model, rows, budget, lambda row, logits_MW: look(indices[row], logits_MW), self.inputs)


def count(tally: Tally, metric: str, found: dict[str, Any], *, generated: bool) -> None:
    """Take one prompt's scores into the tally."""
    tally.add(metric, found["tokens"])
    tally.add(f"{metric}_all", found["all"])
    if generated and "generated" in found:
        tally.add(f"{metric}_exact", found["exact"])
        tally.add(f"{metric}_contain", found["contain"])


def compare(tally: Tally, before: Scores, after: Scores) -> None:
    """Locality: how much of what was said about the unrelated prompt is still said."""
    if "LS" not in after:
        return
    then, now = before["LS"], after["LS"]
    tally.add("LS_agreement", agreement(then["ids"], now["ids"]))
    if "generated" in then and "generated" in now:
        tally.add("LS_same", then["generated"] == now["generated"])


def agreement(then: Sequence[int], now: Sequence[int]) -> float:
    """Share of positions with the same first choice."""
    return sum(a == b for a, b in zip(then, now, strict=True)) / len(then)
