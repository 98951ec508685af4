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

from config.schema import Config
from data.base import Edit
from files import kept
from lifelong.sample import Reference, known_facts
from lifelong.scorer import Scorer, Scores, compare
from lifelong.setup import Data, Loaded
from model import fingerprint
from report.metrics import HEADLINE, Measured, Tally

FORMAT = 1  # of the cached folder; raise it when what is measured changes


class Evaluation:
    """Scores the edits of a run with the model as it stands; `between` is called between chunks of edits."""

    def __init__(
        self, cfg: Config, loaded: Loaded, data: Data, files: dict[str, str], run_dir: Path,
        between: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.cfg, self.model, self.tokenizer, self.data = cfg, loaded.model, loaded.tokenizer, data
        self.files, self.run_dir = files, run_dir
        self.scorer = Scorer(cfg, loaded, data.edits, between)
        self.sample = self.scorer.some(cfg.eval.sample)
        self.knowns = known_facts(cfg.eval, cfg.seed)
        self.before: Measured | None = None
        self.folder: Path | None = None
        self.reference: Reference | None = None

    def measure_before(self) -> None:
        """Score the model before any edit, or find that it was done: the model must be as loaded."""
        key = hashlib.sha256(json.dumps(self._key(), sort_keys=True).encode())
        key.update(fingerprint(self.model.state_dict().items()))
        parent = Path(self.cfg.eval.cache_dir).expanduser() if self.cfg.eval.cache_dir else self.run_dir
        folder = kept(parent, f"before-{key.hexdigest()[:32]}", self._write_before)
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
        tally = Tally()
        with open(folder / "lines.jsonl", "w", encoding="utf-8") as file:
            for _, _, scores in self.scorer.scored("evaluate before", tally):
                file.write(json.dumps(scores, ensure_ascii=False) + "\n")
        self.scorer.measure_knowns(self.knowns, tally)
        reference = Reference({})
        self.scorer.look_at(self.sample, reference.look)
        if reference.log_probs:
            reference.save(folder / "reference.safetensors")
        totals = {name: [value, tally.counts[name]] for name, value in tally.means().items()}
        (folder / "totals.json").write_text(json.dumps(totals), encoding="utf-8")

    def measure_after(self) -> tuple[dict[str, tuple[float, int]], list[dict[str, Any]]]:
        """Score the model as it stands; writes edits.jsonl. Returns totals and the examples to show."""
        tally, shown = Tally(), []
        handle, scratch = tempfile.mkstemp(prefix=".edits-", dir=self.run_dir)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                for (index, edit, after), before in zip(
                    self.scorer.scored("evaluate after", tally), self._lines_before(), strict=False
                ):
                    if before is not None:
                        compare(tally, before, after)
                    line = self._line(index, edit, before, after)
                    if self.cfg.eval.per_edit:
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    if index in self.scorer.examples:
                        shown.append(_example(line))
            if self.cfg.eval.per_edit:
                os.replace(scratch, self.run_dir / "edits.jsonl")
        finally:
            Path(scratch).unlink(missing_ok=True)
        self.scorer.measure_knowns(self.knowns, tally)
        if self.reference is not None:
            self.scorer.look_at(
                self.sample, lambda index, logits_MW: tally.add("LS_kl", self.reference.divergence(index, logits_MW))
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
