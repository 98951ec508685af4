"""Scoring of a whole run before and after editing: totals, and every edit's predictions.

What was measured before any edit is kept in a folder named after everything that it depends on, so
that a sweep measures it once: lines.jsonl (a line per edit), totals.json, reference.safetensors.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from config.schema import Config
from data.base import Edit
from data.batches import tokenize
from editor.base import Stopwatch
from files import kept, read_json, sha256_of_json, whole_file
from lifelong.answers import answers
from lifelong.recorder import Recorder
from lifelong.sample import Reference, at_positions
from lifelong.scorer import Scorer, Scores, agreement, compare
from lifelong.session import Session
from lifelong.setup import Data
from report.metrics import HEADLINE, Measured, Tally

FORMAT = 2  # of the cached folder; raise it when what is measured changes
# keys of a data set that do not change what a record is read as
NOT_READ = ("n_edits", "batch_size", "train_path", "valid_path", "on_bad_row", "cache_dir", "how_to_get", "warm_up",
            "warm_up_data")  # fmt: skip


class Evaluation:
    """Scores the edits of a run with the model as it stands; `between` is called between chunks of edits."""

    def __init__(
        self, cfg: Config, session: Session, data: Data, files: dict[str, str], recorder: Recorder,
        between: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.cfg, self.session, self.data, self.files, self.recorder = cfg, session, data, files, recorder
        self.model, self.tokenizer, self.run_dir = session.model, session.tokenizer, recorder.run_dir
        self.scorer = Scorer(cfg, session, data.edits, between)
        self.sample = self.scorer.some(cfg.eval.sample)
        self.before: Measured | None = None
        self.folder: Path | None = None
        self.reference: Reference | None = None
        self.logged_before = False

    def state_dict(self) -> dict[str, bool]:
        """Whether metrics.jsonl has the numbers before editing."""
        return {"logged_before": self.logged_before}

    def load_state_dict(self, state: Mapping[str, bool]) -> None:
        """Take over what state_dict gave."""
        self.logged_before = state["logged_before"]

    def log(self, measured: Measured, edits: int) -> None:
        """A line of metrics.jsonl with the numbers before the first edit or after the last; the former once."""
        if edits or not self.logged_before:
            self.recorder.log({"event": "evaluate", "edits": edits, **{name: v for name, (v, _) in measured.items()}})
        self.logged_before = True

    def measure_before(self) -> None:
        """Score the model before any edit, or find that it was done: the model must be as loaded."""
        key = sha256_of_json(self._key() | {"model": self.session.fingerprint})
        parent = Path(self.cfg.eval.cache_dir).expanduser() if self.cfg.eval.cache_dir else self.run_dir
        folder = kept(parent, f"before-{key[:32]}", self._write_before)
        totals = read_json(folder / "totals.json")
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
        data = {name: value for name, value in asdict(cfg.dataset).items() if name not in NOT_READ}
        return {
            "format": FORMAT,
            "eval": measured,
            "knowns": [[fact.prompt, fact.answer] for fact in self.data.knowns],
            "data": data | {"edits": len(self.data.edits), "skipped": sorted(map(str, self.data.edits.bad))},
            "file": self.files[str(self.data.edits.path.resolve())],
            "seed": cfg.seed,
            "tokenizer": sorted(self.tokenizer.get_vocab().items())[:: max(1, len(self.tokenizer) // 1000)],
            "template": str(self.tokenizer.chat_template),
            "device": self.model.device.type,
            "versions": [version("torch"), version("transformers")],
        }

    def _write_before(self, folder: Path) -> None:
        tally = Tally()
        with open(folder / "lines.jsonl", "w", encoding="utf-8") as file:
            for _, _, scores in self.scorer.scored("evaluate before", tally):
                file.write(json.dumps(scores, ensure_ascii=False) + "\n")
        self.scorer.measure_knowns(self.data.knowns, tally)
        reference = Reference({})
        self.scorer.look_at(self.sample, reference.look)
        if reference.log_probs:
            reference.save(folder / "reference.safetensors")
        totals = {name: [value, tally.counts[name]] for name, value in tally.means().items()}
        (folder / "totals.json").write_text(json.dumps(totals), encoding="utf-8")

    def measure_after(self) -> tuple[dict[str, tuple[float, int]], list[dict[str, Any]]]:
        """Score the model as it stands; writes edits.jsonl. Returns totals and the examples to show."""
        tally, shown = Tally(), []
        with whole_file(self.run_dir / "edits.jsonl") if self.cfg.eval.per_edit else nullcontext() as file:
            pairs = zip(self.scorer.scored("evaluate after", tally), self._lines_before(), strict=False)
            for (index, edit, after), before in pairs:
                if before is not None:
                    compare(tally, before, after)
                line = self._line(index, edit, before, after)
                if file is not None:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                if index in self.scorer.examples:
                    shown.append(_example(line))
        self.scorer.measure_knowns(self.data.knowns, tally)
        reference = self.reference
        if reference is not None:
            self.scorer.look_at(
                self.sample, lambda index, logits_MW: tally.add("LS_kl", reference.divergence(index, logits_MW))
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
            for index, scores in zip(self.scorer.chosen, self._lines_before() if self.folder else (), strict=False)
            if index in wanted and scores and "LS" in scores
        }

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


class OverTime:
    """Measures the run's fixed sample (Evaluation.sample) before the first step and after every eval.every."""

    patient = False

    def __init__(self, evaluation: Evaluation, watch: Stopwatch) -> None:
        self.evaluation, self.cfg, self.watch = evaluation, evaluation.cfg, watch
        self.measured = -1

    def state_dict(self) -> dict[str, int]:
        """The last step that was measured."""
        return {"measured": self.measured}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take over what state_dict gave."""
        self.measured = state["measured"]

    @cached_property
    def sample(self) -> dict[int, Edit]:
        """The sampled edits by position."""
        return dict(at_positions(self.evaluation.data.edits, self.evaluation.sample))

    @cached_property
    def before(self) -> dict[int, list[int]]:
        """First choices before editing at the sample's unrelated answers."""
        return self.evaluation.choices_before(self.evaluation.sample)

    def look(self, edits_done: int, batch: Sequence[Edit]) -> str:
        """Measure where it is due, and write it to metrics.jsonl."""
        every, step = self.cfg.eval.every, edits_done // self.cfg.dataset.n_edits
        if not every or step % every or step <= self.measured:
            return ""
        with self.watch("evaluate over time"):
            found = self.measure(step, batch)
        self.measured = step
        self.evaluation.recorder.log({"event": "over_time", **found})
        return f"ES of step {step}={found['immediate']['ES']:.2f}" if "immediate" in found else ""

    def measure(self, step: int, batch: Sequence[Edit]) -> dict[str, Any]:
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
        asked += [("KS", 0, fact.prompt, fact.answer.strip()) for fact in self.evaluation.data.knowns]
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

        found = answers(
            self.evaluation.model, rows, self.cfg.eval.tokens_per_batch, look, self.evaluation.session.inputs
        )
        for (metric, index, _, _), answered in zip(whole, found, strict=True):
            tally.add(metric, answered.accuracy)
            if metric == "ES":
                retention.add(str(index // self.cfg.dataset.n_edits + 1), answered.accuracy)
            if metric == "LS" and index in self.before:
                tally.add("LS_agreement", agreement(self.before[index], answered.chosen_M))
        return tally, retention
