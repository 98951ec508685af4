"""Run the downstream tasks on a model and leave their figures and generations in the run directory."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.schema import DownstreamBackend, DownstreamConfig
from files import flatten, write_json, write_lines
from glue_eval.figures import averages, figures
from glue_eval.perplexity import perplexity
from glue_eval.predictions import as_record, encode_tests, predict
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
        if self.cfg.backend is DownstreamBackend.lm_eval:
            from glue_eval.lm_eval_backend import run_tasks  # an optional package

            results = run_tasks(model, tokenizer, self.cfg, self.rows)
        else:
            results = {name: self._task(name, model, tokenizer, stem) for name in self.rows}
        if PERPLEXITY in self.cfg.tasks:
            results[PERPLEXITY] = self._perplexity(model, tokenizer)
        average = averages([results[name] for name in self.rows])
        setting = {
            "edits": edits or 0,
            "source": self.source,
            "backend": self.cfg.backend.value,
            "few_shots": self.cfg.few_shots,
        }
        write_json(self.folder / f"{stem}_glue.json", setting | results | {"average": average})
        return {k: v for k, v in flatten(results | {"average": average}, "/").items() if isinstance(v, int | float)}

    def _task(self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stem: str) -> dict[str, Any]:
        start = time.perf_counter()
        task = TASKS[name]
        questions, too_long = encode_tests(task, self.rows[name], tokenizer, model.config)
        if too_long:
            log.warning("downstream: %s: questions longer than the context: rows %s", name, too_long)
        with tqdm(total=len(questions), desc=name, disable=None, leave=False) as bar:
            scores = score(model, questions, self.cfg.batch_size, bar.update)
        said = predict(task, questions, scores, tokenizer)
        examples = (as_record(task, *pair) for pair in zip(questions, said, strict=True))
        write_lines(self.folder / f"{stem}_{name}.jsonl", examples)
        labels = [question.row.label for question in questions]
        found = figures(labels, [p.answer for p in said], [p.choice for p in said], task.glue_flipped)
        return {
            **found,
            "time": time.perf_counter() - start,
            "too_long": len(too_long),
            "too_long_rows": too_long,
            "not_finite": sum(not all(map(math.isfinite, p.probabilities)) for p in said),
            "source": self.source,
            "version": task.version,
        }

    def _perplexity(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        start = time.perf_counter()
        path = Path(self.cfg.perplexity_text or "").expanduser()
        found = perplexity(model, tokenizer, path)
        return {**found, "time": time.perf_counter() - start, "source": str(path)}
