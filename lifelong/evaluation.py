"""Scoring of a whole run before and after editing: totals, and every edit's predictions.

What was measured before any edit is kept in a folder named after everything that it depends on, so
that a sweep measures it once: lines.jsonl (a line per edit), totals.json, reference.safetensors.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from config.schema import Probe
from data.base import Edit
from editor.base import Stopwatch
from files import kept, read_json, sha256_of_json, whole_file
from lifelong.answers import grouped, probes
from lifelong.blanks import warn_of_blanks
from lifelong.earlier import Earlier
from lifelong.edit_lines import example, texts, without_ids
from lifelong.fullness import Ages
from lifelong.judging import Judging
from lifelong.loop import Watcher
from lifelong.recorder import Recorder
from lifelong.resume import Kept
from lifelong.scored_model import ScoredModel
from lifelong.scorer import Reference, Scorer, Scores, agreement, at_positions, compare, compare_taken, each_of
from lifelong.setup import Data
from lifelong.status import writing
from lifelong.worst import Worst
from report.metrics import HEADLINE, TOOK, Measured, Tally, says_little

log = logging.getLogger(__name__)

FORMAT = 4  # of the cached folder; raise it when what is measured changes
# keys of a data set that do not change what a record is read as
NOT_READ = ("n_edits", "batch_size", "train_path", "valid_path", "limit", "on_bad_row", "cache_dir", "how_to_get",
            "warm_up", "warm_up_data")  # fmt: skip
# keys of eval that change no number before editing; a judge is asked at the end (lifelong/judging.py)
NOT_MEASURED = ("before", "tokens_per_batch", "every", "per_edit", "cache_dir", "best", "judge_url", "judge_model")


class Evaluation(Kept):
    """Scores the edits of a run with the model as it stands; `between` is called between chunks of edits."""

    kept = ("logged_before",)  # whether metrics.jsonl has the numbers before editing

    def __init__(
        self, session: ScoredModel, data: Data, files: dict[str, str], recorder: Recorder,
        between: Callable[[], None],
    ) -> None:  # fmt: skip
        self.cfg, self.session, self.data, self.files, self.recorder = session.cfg, session, data, files, recorder
        self.run_dir = recorder.run_dir
        self.scorer = Scorer(session, data.edits, between)
        self.sample = self.scorer.some(self.cfg.eval.sample)
        self.before: Measured | None = None
        self.folder: Path | None = None
        self.reference: Reference | None = None
        self.logged_before = False
        self.earlier, self.ages, self.worst = Earlier(session), Ages(len(data.edits)), Worst()
        self.judging = Judging(self.cfg.eval)
        recorder.edits_before, recorder.steps_before = self.earlier.edits, self.earlier.steps

    def log(self, measured: Measured, edits: int) -> None:
        """A line of metrics.jsonl with the numbers before the first edit or after the last."""
        self.recorder.log({"event": "evaluate", "edits": edits, **{name: v for name, (v, _) in measured.items()}})
        self.logged_before = True

    def measure_before(self) -> None:
        """Score the model before any edit, or find that it was done: the model must be as loaded."""
        key = sha256_of_json(self._key() | {"model": self.session.fingerprint})
        cache, name = self.cfg.eval.cache_dir, f"before-{key[:32]}"
        with writing("eval.cache_dir", cache, "make room, or name another folder, null for none"):
            folder = kept(Path(cache).expanduser() if cache else self.run_dir, name, self._write_before)
        totals = read_json(folder / "totals.json")
        self.before = {name: (value, n) for name, (value, n) in totals.items()} | self.earlier.ask("before")
        self.folder = folder
        if words := says_little({name: value for name, (value, _) in self.before.items()}):
            log.warning("%s", words)
        warn_of_blanks(folder / "lines.jsonl", self.cfg.dataset.prompt_format)
        if (folder / "reference.safetensors").is_file():
            self.reference = Reference.load(folder / "reference.safetensors")

    def _key(self) -> dict[str, Any]:
        """What the numbers before editing depend on, beside the weights."""
        cfg, tokenizer = self.cfg, self.session.tokenizer
        measured = asdict(cfg.eval)
        for name in NOT_MEASURED:
            del measured[name]
        measured["probes"] = sorted(set(measured["probes"]))
        data = {name: value for name, value in asdict(cfg.dataset).items() if name not in NOT_READ}
        return {
            "format": FORMAT,
            "eval": measured,
            "knowns": self.data.knowns,
            "data": data | {"edits": len(self.data.edits), "skipped": sorted(map(str, self.data.edits.bad))},
            "file": self.files[str(self.data.edits.path.resolve())],
            "seed": cfg.seed,
            "tokenizer": sorted(tokenizer.get_vocab().items())[:: max(1, len(tokenizer) // 1000)],
            "template": str(tokenizer.chat_template),
            "device": self.session.model.device.type,
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
        (folder / "totals.json").write_text(json.dumps(_totals(tally)), encoding="utf-8")

    def measure_after(self) -> tuple[dict[str, tuple[float, int]], list[dict[str, Any]]]:
        """Score the model as it stands; writes edits.jsonl. Returns totals and the examples to show."""
        tally, then, shown, taken = Tally(), Tally(), [], set[str]()
        asked_of_taken = Probe.took in self.cfg.eval.probes
        with whole_file(self.run_dir / "edits.jsonl") if self.cfg.eval.per_edit else nullcontext() as file:
            pairs = zip(self.scorer.scored("evaluate after", tally), self.lines_before(), strict=False)
            for (index, edit, after), before in pairs:
                own = Tally()
                if before is not None:
                    compare(own, before, after)
                    tally.take(own)
                if asked_of_taken and after["ES"]["all"]:
                    compare_taken(then, tally, before, after)
                    taken.add(str(index))
                self.ages.add(index, after["ES"])
                line = self._line(index, edit, before, after)
                self.worst.add(line, after, own.sums.get("LS_agreement"))
                if file is not None:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                if index in self.scorer.generated:
                    self.judging.add(line["index"], edit, {"before": before, "after": after})
                if index in self.scorer.examples:
                    shown.append(example(line))
        self.scorer.measure_knowns(self.data.knowns, tally)
        self._measure_divergence(tally, taken)
        self.judging.finish(self.run_dir / "judge.jsonl", {"before": then, "after": tally}, self.scorer.between)
        if self.before is not None:
            self.before = {**self.before, **_totals(then)}
        return _totals(tally) | self.earlier.ask("after"), shown

    def _measure_divergence(self, tally: Tally, taken: set[str]) -> None:
        """KL against before at the sample's answers of locality; once more for edits that took."""
        if (reference := self.reference) is None:
            return

        def look(key: str, logits_MW: Tensor) -> None:
            metric, _, index = key.partition("/")
            value = reference.divergence(key, logits_MW)
            tally.add(f"{metric}_kl", value)
            if index in taken:
                tally.add(f"{metric}_kl{TOOK}", value)

        self.scorer.look_at(self.sample, look)

    def forget(self) -> None:
        """Remove what was kept in the run directory for its own use."""
        if self.folder is not None and self.folder.parent == self.run_dir:
            shutil.rmtree(self.folder, ignore_errors=True)
            (self.run_dir / f".{self.folder.name}.lock").unlink(missing_ok=True)

    def lines_before(self) -> Iterator[Scores | None]:
        """Each scored edit's scores before editing; None for each, without end, where they were not measured."""
        if self.folder is None:
            yield from repeat(None)
        else:
            with open(self.folder / "lines.jsonl", encoding="utf-8") as file:
                yield from map(json.loads, file)

    def _line(self, index: int, edit: Edit, before: Scores | None, after: Scores) -> dict[str, Any]:
        step = index // self.cfg.dataset.n_edits + 1
        line = {"index": self.recorder.edits_before + index, "step": self.recorder.steps_before + step}
        return line | texts(edit) | {"before": without_ids(before), "after": without_ids(after)}


def _totals(tally: Tally) -> dict[str, tuple[float, int]]:
    return {name: (value, tally.counts[name]) for name, value in tally.means().items()}


def headline(measured: Measured) -> dict[str, float]:
    """ES, GS, LS and their kin, without denominators."""
    return {name: measured[name][0] for name in HEADLINE if name in measured}


ENTERED = ("ES", "GS")  # what can be asked of an edit once it is written
Asked = tuple[str, int, str, str]
"""A metric, an edit's position, and a prompt and answer that measure it."""


class OverTime(Watcher):
    """Measures the batch just written and the run's fixed sample (Evaluation.sample)."""

    event, phase = "over_time", "evaluate over time"

    def __init__(self, evaluation: Evaluation, watch: Stopwatch) -> None:
        cfg = evaluation.cfg
        super().__init__(cfg.eval.every, cfg.dataset.n_edits, evaluation.recorder, watch)
        self.evaluation = evaluation

    @cached_property
    def sample(self) -> dict[int, Edit]:
        """The sampled edits by position."""
        return dict(at_positions(self.evaluation.data.edits, self.evaluation.sample))

    @cached_property
    def before(self) -> dict[int, list[list[int]]]:
        """First choices before editing at the sample's unrelated answers."""
        lines = zip(self.evaluation.scorer.chosen, self.evaluation.lines_before(), strict=False)
        found = {index: line["LS"] for index, line in lines if index in self.sample and line and "LS" in line}
        return {index: [one["ids"] for one in each_of(scores)] for index, scores in found.items()}

    def measure(self, step: int, batch: Sequence[Edit]) -> dict[str, Any]:
        """One line of metrics.jsonl after `step` steps; `batch` is what the last of them wrote.

        `immediate` is the batch's success, `sample` the fixed sample's (ES and GS over the sampled edits
        written so far), `retention` its ES by the step that wrote them, `n` the denominators.
        """
        asked, context = list[Asked](), self.evaluation.session.context
        for place, edit in enumerate(batch):
            found = probes(edit, mhop=False, front=context(edit.prompt))
            asked += [(f"now_{name}", place, prompt, say) for name, prompt, say in found if name in ENTERED]
        for index, edit in self.sample.items():
            wanted = (*ENTERED, "LS") if index < step * self.n_edits else ("LS",)
            found = probes(edit, mhop=False, front=context(edit.prompt))
            asked += [(name, index, prompt, say) for name, prompt, say in found if name in wanted]
        asked += [("KS", place, *pair) for place, pair in enumerate(self.evaluation.data.knowns)]
        tally, retention = self._tallied(asked)
        means = tally.means()
        immediate = {name.removeprefix("now_"): value for name, value in means.items() if name.startswith("now_")}
        line: dict[str, Any] = {"step": step} | ({"immediate": immediate} if immediate else {})
        line["sample"] = {name: value for name, value in means.items() if not name.startswith("now_")}
        return line | {"n": dict(tally.counts), "retention": retention.means()}

    def _tallied(self, asked: list[Asked]) -> tuple[Tally, Tally]:
        tally, retention, reference = Tally(), Tally(), self.evaluation.reference
        rows = grouped([one[:2] for one in asked], range(len(asked)))

        def look(row: int, logits_MW: Tensor) -> None:
            metric, index, *_ = asked[row]
            # the reference is of an edit's first unrelated prompt
            if metric == "LS" and reference is not None and row == rows["LS", index][0]:
                tally.add("LS_kl", reference.divergence(f"LS/{index}", logits_MW))

        found = self.evaluation.session.answers([(prompt, answer) for *_, prompt, answer in asked], look)
        for (metric, index), these in rows.items():
            each = [found[row] for row in these]
            accuracy = fmean(answered.accuracy for answered in each)
            tally.add(metric, accuracy)
            if metric == "ES":
                retention.add(str(index // self.n_edits + 1), accuracy)
            if metric == "LS" and index in self.before:
                pairs = zip(self.before[index], each, strict=True)
                tally.add("LS_agreement", fmean(agreement(then, now.chosen_M) for then, now in pairs))
        return tally, retention
