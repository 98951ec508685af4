"""Measuring while editing: the batch just written, earlier edits, unrelated prompts and known facts."""

from __future__ import annotations

from typing import Any

from data.base import Edit
from data.batches import tokenize
from lifelong.answers import answers
from lifelong.evaluation import Evaluation
from lifelong.sample import at_positions
from lifelong.scorer import agreement
from report.metrics import Tally


class OverTime:
    """Measures the run's fixed sample (Evaluation.sample) after some steps."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation, self.cfg = evaluation, evaluation.cfg
        self.sample = dict(at_positions(evaluation.data.edits, evaluation.sample))
        self.before = evaluation.choices_before(evaluation.sample)

    def measure(self, step: int, batch: list[Edit]) -> dict[str, Any]:
        """One line of metrics.jsonl after `step` steps; `batch` is what the last of them wrote.

        `immediate` is the batch's success, `sample` the fixed sample's (ES and GS over the sampled edits
        written so far), `retention` its ES by the step that wrote them, `n` the denominators.
        """
        n_edits = self.cfg.dataset.n_edits
        asked: list[tuple[str, int, str | None, str | None]] = []
        for edit in batch:
            asked += [("now_ES", 0, edit.prompt, edit.answer), ("now_GS", 0, edit.rephrase, edit.answer)]
        for index, edit in self.sample.items():
            if index < step * n_edits:
                asked += [("ES", index, edit.prompt, edit.answer), ("GS", index, edit.rephrase, edit.answer)]
            asked.append(("LS", index, edit.unrelated, edit.unrelated_answer))
        asked += [("KS", 0, fact.prompt, fact.answer.strip()) for fact in self.evaluation.knowns]
        tally, retention = self._tallied(asked)
        means = tally.means()
        immediate = {name.removeprefix("now_"): value for name, value in means.items() if name.startswith("now_")}
        found: dict[str, Any] = {"step": step, "edits": step * n_edits}
        found |= {"immediate": immediate} if immediate else {}
        found["sample"] = {name: value for name, value in means.items() if not name.startswith("now_")}
        return found | {"n": dict(tally.counts), "retention": retention.means()}

    def _tallied(self, asked: list[tuple[str, int, str | None, str | None]]) -> tuple[Tally, Tally]:
        whole = [
            (metric, index, prompt, answer)
            for metric, index, prompt, answer in asked
            if prompt is not None and answer is not None
        ]
        pairs = [(prompt, answer) for _, _, prompt, answer in whole]
        rows = tokenize(self.evaluation.tokenizer, pairs, self.cfg.dataset.prompt_format)
        tally, retention = Tally(), Tally()
        reference = self.evaluation.reference

        def look(row: int, logits_MW: Any) -> None:
            metric, index, _, _ = whole[row]
            if metric == "LS" and reference is not None:
                tally.add("LS_kl", reference.divergence(index, logits_MW))

        found = answers(self.evaluation.model, rows, self.cfg.eval.tokens_per_batch, look)
        for (metric, index, _, _), answered in zip(whole, found, strict=True):
            tally.add(metric, answered.accuracy)
            if metric == "ES":
                retention.add(str(index // self.cfg.dataset.n_edits + 1), answered.accuracy)
            if metric == "LS" and index in self.before:
                tally.add("LS_agreement", agreement(self.before[index], answered.chosen_M))
        return tally, retention
