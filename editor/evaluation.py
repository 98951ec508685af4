"""Scoring of a whole run before and after editing: totals, and every edit's predictions.

What was measured before any edit is kept in a folder named after everything that it depends on, so
that a sweep measures it once: lines.jsonl (a line per edit), totals.json, reference.safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from config.schema import Config
from data.base import Edit
from data.batches import tokenize
from data.prompt_format import prompt_ids
from editor.generation import contains, exact, generate
from editor.metrics import Answered, answers, chunks, probes
from editor.sample import Reference, drawn, fetch, fingerprint, known_facts
from editor.setup import Data, Loaded
from editor.tally import HEADLINE, Measured, Tally

FORMAT = 1  # of the cached folder; raise it when what is measured changes
Scores = dict[str, dict[str, Any]]
"""What one edit's prompts gave, by metric: ids, prediction, tokens, all; generated, exact, contain where generated."""


class Evaluation:
    """Scores the edits of a run with the model as it stands; `between` is called between chunks of edits."""

    def __init__(
        self, cfg: Config, loaded: Loaded, data: Data, files: dict[str, str], run_dir: Path,
        between: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.cfg, self.model, self.tokenizer, self.data = cfg, loaded.model, loaded.tokenizer, data
        self.between, self.files, self.run_dir = between, files, run_dir
        total = len(data.edits)
        self.sample = drawn(total, cfg.eval.sample, cfg.seed)
        self.examples = drawn(total, cfg.eval.examples, cfg.seed)
        self.generated = set(drawn(total, cfg.eval.generate_sample, cfg.seed)) if cfg.eval.generate else set()
        self.knowns = known_facts(cfg.eval, cfg.seed)
        self.before: Measured | None = None
        self.folder: Path | None = None
        self.reference: Reference | None = None

    def measure_before(self) -> None:
        """Score the model before any edit, or find that it was done: the model must be as loaded."""
        key = hashlib.sha256(json.dumps(self._key(), sort_keys=True).encode())
        key.update(fingerprint(self.model.state_dict().items()))
        parent = Path(self.cfg.eval.cache_dir).expanduser() if self.cfg.eval.cache_dir else self.run_dir
        parent.mkdir(parents=True, exist_ok=True)
        folder = parent / f"before-{key.hexdigest()[:32]}"
        with FileLock(parent / f".{folder.name}.lock"):
            if not folder.is_dir():
                self._write_before(folder)
        totals = json.loads((folder / "totals.json").read_text(encoding="utf-8"))
        self.before = {name: (value, n) for name, (value, n) in totals.items()}
        self.folder = folder
        if (folder / "reference.safetensors").is_file():
            self.reference = Reference.load(folder / "reference.safetensors")

    def _key(self) -> dict[str, Any]:
        """What the numbers before editing depend on, beside the weights."""
        cfg = self.cfg
        measured = asdict(cfg.eval)
        for name in ("before", "tokens_per_batch", "every", "per_edit", "cache_dir"):
            del measured[name]
        data = {name: str(getattr(cfg.dataset, name)) for name in ("name", "eval_mhop", "prompt_format", "fields")}
        return {
            "format": FORMAT,
            "eval": measured,
            "knowns": [[fact.prompt, fact.answer] for fact in self.knowns],
            "data": data | {"edits": len(self.data.edits), "skipped": sorted(map(str, self.data.edits.bad))},
            "file": self.files[str(self.data.edits.path.resolve())],
            "seed": cfg.seed,
            "tokenizer": sorted(self.tokenizer.get_vocab().items())[:: max(1, len(self.tokenizer) // 1000)],
            "template": str(self.tokenizer.chat_template),
            "device": self.model.device.type,
            "versions": [version("torch"), version("transformers")],
        }

    def _write_before(self, folder: Path) -> None:
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            tally = Tally()
            with open(scratch / "lines.jsonl", "w", encoding="utf-8") as file:
                for _, _, scores in self._scored("evaluate before", tally):
                    file.write(json.dumps(scores, ensure_ascii=False) + "\n")
            self._measure_knowns(tally)
            reference = Reference({})
            self._look_at_sample(reference.look)
            if reference.log_probs:
                reference.save(scratch / "reference.safetensors")
            totals = {name: [value, tally.counts[name]] for name, value in tally.means().items()}
            (scratch / "totals.json").write_text(json.dumps(totals), encoding="utf-8")
            scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def measure_after(self) -> tuple[dict[str, tuple[float, int]], list[dict[str, Any]]]:
        """Score the model as it stands; writes edits.jsonl. Returns totals and the examples to show."""
        tally, shown = Tally(), []
        handle, scratch = tempfile.mkstemp(prefix=".edits-", dir=self.run_dir)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                for (index, edit, after), before in zip(
                    self._scored("evaluate after", tally), self._lines_before(), strict=False
                ):
                    if before is not None:
                        _compare(tally, before, after)
                    line = self._line(index, edit, before, after)
                    if self.cfg.eval.per_edit:
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    if index in self.examples:
                        shown.append(_example(line))
            if self.cfg.eval.per_edit:
                os.replace(scratch, self.run_dir / "edits.jsonl")
        finally:
            Path(scratch).unlink(missing_ok=True)
        self._measure_knowns(tally)
        if self.reference is not None:
            self._look_at_sample(
                lambda index, logits_MW: tally.add("LS_kl", self.reference.divergence(index, logits_MW))
            )
        return {name: (value, tally.counts[name]) for name, value in tally.means().items()}, shown

    def forget(self) -> None:
        """Remove what was kept in the run directory for its own use."""
        if self.folder is not None and self.folder.parent == self.run_dir:
            shutil.rmtree(self.folder, ignore_errors=True)
            (self.run_dir / f".{self.folder.name}.lock").unlink(missing_ok=True)

    def _lines_before(self) -> Iterator[Scores | None]:
        if self.folder is None:
            while True:
                yield None
        with open(self.folder / "lines.jsonl", encoding="utf-8") as file:
            yield from map(json.loads, file)

    def choices_before(self, indices: Sequence[int]) -> dict[int, list[int]]:
        """First choices before editing at the unrelated answer, by edit."""
        wanted = set(indices)
        return {
            index: scores["LS"]["ids"]
            for index, scores in enumerate(self._lines_before() if self.folder else ())
            if index in wanted and scores and "LS" in scores
        }

    def _scored(self, label: str, tally: Tally) -> Iterator[tuple[int, Edit, Scores]]:
        """Every edit with its scores, which the tally takes in."""
        index = 0
        for chunk in chunks(self.data.edits, len(self.data.edits), label):
            for edit, scores in zip(chunk, self._score(chunk, index), strict=True):
                for metric, found in scores.items():
                    _count(tally, metric, found, generated=index in self.generated)
                yield index, edit, scores
                index += 1
            self.between()

    def _score(self, edits: list[Edit], first: int) -> list[Scores]:
        asked = [
            (position, metric, prompt, answer)
            for position, edit in enumerate(edits)
            for metric, (prompt, answer) in probes(edit, mhop=self.cfg.dataset.eval_mhop).items()
        ]
        style, budget = self.cfg.dataset.prompt_format, self.cfg.eval.tokens_per_batch
        rows = tokenize(self.tokenizer, [(prompt, answer) for _, _, prompt, answer in asked], style)
        scores: list[Scores] = [{} for _ in edits]
        for (position, metric, _, _), answered in zip(asked, answers(self.model, rows, budget), strict=True):
            scores[position][metric] = self._teacher_forced(answered)
        spoken = [entry for entry in asked if self._is_generated(first + entry[0], entry[1])]
        prompts = prompt_ids(self.tokenizer, [prompt for _, _, prompt, _ in spoken], style)
        texts = generate(
            self.model, self.tokenizer, prompts,
            max_new_tokens=self.cfg.eval.max_new_tokens, tokens_per_batch=budget,
        )  # fmt: skip
        for (position, metric, _, answer), text in zip(spoken, texts, strict=True):
            found = {"generated": text, "exact": exact(text, answer), "contain": contains(text, answer)}
            scores[position][metric] |= found
        return scores

    def _teacher_forced(self, answered: Answered) -> dict[str, Any]:
        prediction = self.tokenizer.decode(answered.chosen_M).strip()
        return {
            "ids": answered.chosen_M,
            "prediction": prediction,
            "tokens": answered.accuracy,
            "all": answered.all_right,
        }

    def _is_generated(self, index: int, metric: str) -> bool:
        return (index in self.generated and metric in ("ES", "GS", "LS")) or (index in self.examples and metric == "ES")

    def _measure_knowns(self, tally: Tally) -> None:
        pairs = [(fact.prompt, fact.answer.strip()) for fact in self.knowns]
        rows = tokenize(self.tokenizer, pairs, self.cfg.dataset.prompt_format)
        for answered in answers(self.model, rows, self.cfg.eval.tokens_per_batch):
            tally.add("KS", answered.accuracy)
            tally.add("KS_all", answered.all_right)

    def _look_at_sample(self, look: Callable[[int, Any], None]) -> None:
        """Show the logits at the unrelated answers of the sample."""
        edits = fetch(self.data.edits, self.sample)
        pairs = {i: (e.unrelated, e.unrelated_answer) for i, e in edits.items() if e.unrelated and e.unrelated_answer}
        rows = tokenize(self.tokenizer, list(pairs.values()), self.cfg.dataset.prompt_format)
        indices = list(pairs)
        answers(self.model, rows, self.cfg.eval.tokens_per_batch, lambda row, logits_MW: look(indices[row], logits_MW))

    def _line(self, index: int, edit: Edit, before: Scores | None, after: Scores) -> dict[str, Any]:
        named = {
            "prompt": edit.prompt,
            "target": edit.answer,
            "rephrase": edit.rephrase,
            "unrelated": edit.unrelated,
            "unrelated_target": edit.unrelated_answer,
            "persona": edit.persona,
            "mhop": edit.mhop,
            "mhop_target": edit.mhop_answer,
        }
        line: dict[str, Any] = {"index": index, "row": edit.row, "step": index // self.cfg.dataset.n_edits + 1}
        line |= {name: text for name, text in named.items() if text is not None}
        return line | {"before": _without_ids(before), "after": _without_ids(after)}


def _count(tally: Tally, metric: str, found: dict[str, Any], *, generated: bool) -> None:
    tally.add(metric, found["tokens"])
    tally.add(f"{metric}_all", found["all"])
    if generated and "generated" in found:
        tally.add(f"{metric}_exact", found["exact"])
        tally.add(f"{metric}_contain", found["contain"])


def _compare(tally: Tally, before: Scores, after: Scores) -> None:
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


def _example(line: dict[str, Any]) -> dict[str, Any]:
    before, after = line["before"], line["after"]["ES"]
    return {
        **{name: line[name] for name in ("index", "step", "prompt", "target")},
        "before": before["ES"]["generated"] if before else None,
        "after": after["generated"],
        "kind": "generated",
    }


def _without_ids(scores: Scores | None) -> Scores | None:
    if scores is None:
        return None
    return {metric: {k: v for k, v in found.items() if k != "ids"} for metric, found in scores.items()}


def headline(measured: Measured) -> dict[str, float]:
    """ES, GS, LS and their kin, without denominators."""
    return {name: measured[name][0] for name in HEADLINE if name in measured}
