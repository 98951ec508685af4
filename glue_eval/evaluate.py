"""Run the downstream tasks on a model and leave their figures and generations in the run directory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.schema import DownstreamBackend, DownstreamConfig
from files import flatten, write_json, write_lines
from glue_eval.perplexity import perplexity
from glue_eval.predictions import as_record, averages, encode_tests, figures, predict
from glue_eval.prompts import Question
from glue_eval.rows import log_cap, source_label, validate
from glue_eval.scoring import score
from glue_eval.tasks import PERPLEXITY, TASKS

log = logging.getLogger(__name__)


class DownstreamEvaluator:
    """Evaluates the same tasks again and again as a model is edited.

    Making one checks every key and row, so a bad one is an error before a model loads.

    Raises:
        ConfigError, DataError: as glue_eval.rows.validate.
    """

    def __init__(self, cfg: DownstreamConfig, run_dir: Path) -> None:
        self.cfg = cfg
        self.folder = run_dir / "glue_eval"
        self.rows = validate(cfg)
        self.source = source_label(cfg)
        log_cap(cfg, self.rows)

    def evaluate(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, edits: int | None = None
    ) -> dict[str, float]:
        """Run every task; return the figures by name, such as sst/f1 and average/accuracy_new.

        Writes base_glue.json and base_TASK.jsonl (no edits yet) or case_K_glue.json and case_K_TASK.jsonl
        (K edits so far). A figure that does not exist (no question fitted) is null there and left out here.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = f"case_{edits}" if edits else "base"
        measure: Callable[[str, list[Question]], dict[str, Any]] = partial(self._figures, model, tokenizer, stem)
        if self.cfg.backend is DownstreamBackend.lm_eval:
            from glue_eval.lm_eval_backend import harness  # an optional package

            measure = harness(model, tokenizer, self.cfg.batch_size)
        results: dict[str, dict[str, Any]] = {}
        for name, rows in self.rows.items():
            start = time.perf_counter()
            questions, too_long = encode_tests(TASKS[name], rows, tokenizer, model.config)
            if too_long:
                log.warning("downstream: %s: questions longer than the context: rows %s", name, too_long)
            results[name] = {**measure(name, questions), "time": time.perf_counter() - start}
            results[name] |= {"too_long": len(too_long), "too_long_rows": too_long}
            results[name] |= {"source": self.source, "version": TASKS[name].version}
        average = averages(list(results.values()))
        if PERPLEXITY in self.cfg.tasks:
            start, path = time.perf_counter(), Path(self.cfg.perplexity_text or "").expanduser()
            results[PERPLEXITY] = {**perplexity(model, tokenizer, path), "source": str(path)}
            results[PERPLEXITY] |= {"time": time.perf_counter() - start}
        setting = {"edits": edits or 0, "source": self.source, "backend": self.cfg.backend.value}
        setting |= {"few_shots": self.cfg.few_shots}
        write_json(self.folder / f"{stem}_glue.json", setting | results | {"average": average})
        return {k: v for k, v in flatten(results | {"average": average}, "/").items() if isinstance(v, int | float)}

    def _figures(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stem: str, name: str,
        questions: Sequence[Question],
    ) -> dict[str, Any]:  # fmt: skip
        """A task's figures, its examples written to STEM_NAME.jsonl."""
        task = TASKS[name]
        with tqdm(total=len(questions), desc=name, disable=None, leave=False) as bar:
            scores = score(model, questions, self.cfg.batch_size, bar.update)
        said = predict(task, questions, scores, tokenizer)
        examples = (as_record(task, *pair) for pair in zip(questions, said, strict=True))
        write_lines(self.folder / f"{stem}_{name}.jsonl", examples)
        labels = [question.row.label for question in questions]
        found = figures(labels, [p.answer for p in said], [p.choice for p in said], task.glue_flipped)
        return found | {"not_finite": sum(not all(map(math.isfinite, p.probabilities)) for p in said)}
