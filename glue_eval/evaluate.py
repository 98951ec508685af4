"""Run the downstream tasks on a model and leave their figures and generations in the run directory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError
from config.schema import Config, DownstreamBackend, DownstreamConfig
from config.sizes import at_once
from data.source import locate
from files import MANIFEST, flatten, kept, read_json, sha256_of, sha256_of_json, write_json, write_lines, write_whole
from glue_eval.predictions import Question, averages, encode_tests, figures, predict
from glue_eval.rows import source_label, validate
from glue_eval.scoring import perplexity, score
from glue_eval.tasks import PERPLEXITY, TASKS
from model import fingerprint

log = logging.getLogger(__name__)

FORMAT = 4  # of the kept folder; raise it when what is measured changes


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

    def evaluate(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, edits: int | None = None,
        folder: Path | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """Run every task; return the figures by name, such as sst/f1 and average/accuracy_new.

        Writes base_glue.json and base_TASK.jsonl (no edits yet) or case_K_glue.json and case_K_TASK.jsonl
        (K edits so far), to `folder` or the run's own. A figure that does not exist (no question fitted) is null
        there and left out here.
        """
        stem = (folder or self.folder) / (f"case_{edits}" if edits else "base")
        results = self._tasks(model, tokenizer, stem)
        average = {"average": averages(list(results.values()))}
        if PERPLEXITY in self.cfg.tasks:
            start, path = time.perf_counter(), locate(self.cfg.perplexity_text or "")
            results[PERPLEXITY] = {**perplexity(model, tokenizer, path), "source": str(path)}
            results[PERPLEXITY] |= {"time": time.perf_counter() - start}
        setting = {"edits": edits or 0, "source": self.source, "backend": self.cfg.backend.value}
        content = setting | {"few_shots": self.cfg.few_shots} | results | average
        write_json(Path(f"{stem}_glue.json"), content)
        return numbers(content)

    def _tasks(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stem: Path
    ) -> dict[str, dict[str, Any]]:
        """Every task's figures but perplexity's."""
        if self.cfg.backend is DownstreamBackend.lm_eval:
            from glue_eval.lm_eval_tasks import run_tasks  # an optional package

            named = [name for name in self.cfg.tasks if name != PERPLEXITY]
            return run_tasks(named, model, tokenizer, self.cfg, stem)
        measure: Callable[[str, list[Question]], dict[str, Any]] = partial(self._figures, model, tokenizer, stem)
        if self.cfg.backend is DownstreamBackend.lm_eval_rows:
            from glue_eval.lm_eval_backend import harness  # an optional package

            together = at_once("downstream.batch_size", self.cfg.batch_size, model.device.type)
            measure = harness(model, tokenizer, together)
        results: dict[str, dict[str, Any]] = {}
        for name, rows in self.rows.items():
            start = time.perf_counter()
            questions, too_long = encode_tests(TASKS[name], rows, tokenizer, model.config)
            if too_long:
                log.warning("downstream: %s: questions longer than the context: rows %s", name, too_long)
            results[name] = measure(name, questions) | {"time": time.perf_counter() - start}
            results[name] |= {"too_long": len(too_long), "too_long_rows": too_long}
            results[name] |= {"source": self.source, "version": TASKS[name].version}
        return results

    def _figures(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stem: Path, name: str,
        questions: Sequence[Question],
    ) -> dict[str, Any]:  # fmt: skip
        """A task's figures, its examples written to STEM_NAME.jsonl."""
        task = TASKS[name]
        said = predict(task, questions, score(model, questions, self.cfg.batch_size, name), tokenizer)
        write_lines(Path(f"{stem}_{name}.jsonl"), said)
        labels, answers, choices = ([one[key] for one in said] for key in ("label", "answer", "choice"))
        broken = sum(None in one["probabilities"].values() for one in said)
        return figures(labels, answers, choices, task.glue_flipped) | {"not_finite": broken}


def numbers(content: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a record such as base_glue.json by name; what does not exist is left out."""
    return {k: v for k, v in flatten(content, "/").items() if "/" in k and isinstance(v, int | float)}


def abilities_before(
    cfg: Config, downstream: DownstreamEvaluator, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """The figures before any edit: from eval.cache_dir, or measured now and kept there; the model must be as loaded.

    The records base_*.json and base_*.jsonl stand in the run directory either way; the times in kept
    ones are those of the run that measured them.

    Raises:
        ConfigError: eval.cache_dir cannot be written.
    """
    if cfg.eval.cache_dir is None or cfg.downstream.backend is not DownstreamBackend.builtin:
        return downstream.evaluate(model, tokenizer, 0)

    def measure(folder: Path) -> None:
        downstream.evaluate(model, tokenizer, 0, folder)

    name = f"abilities-{_key(cfg, downstream, model, tokenizer)}"
    try:
        folder = kept(Path(cfg.eval.cache_dir).expanduser(), name, measure)
    except OSError as error:
        raise ConfigError(f"eval.cache_dir={cfg.eval.cache_dir}: {error}; name another folder, or null") from error
    for path in folder.iterdir():  # a run that goes on after a power cut does not copy them again
        if path.name != MANIFEST:
            write_whole(downstream.folder / path.name, path.read_bytes())
    return numbers(read_json(folder / "base_glue.json"))


def _key(
    cfg: Config, downstream: DownstreamEvaluator, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> str:
    """What the figures depend on."""
    about = asdict(cfg.downstream) | {"batch_size": None, "data_dir": None}
    if cfg.downstream.perplexity_text:
        about["perplexity_text"] = sha256_of(locate(cfg.downstream.perplexity_text))
    rows = {name: asdict(part) for name, part in downstream.rows.items()}
    about_model = [model.device.type, str(model.dtype), type(model).__name__, version("torch"), version("transformers")]
    words = [FORMAT, about, rows, downstream.source, sorted(tokenizer.get_vocab().items()), about_model]
    return sha256_of_json(words, fingerprint(model.state_dict().items()))[:32]
