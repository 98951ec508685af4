"""The same rows scored by EleutherAI's lm-evaluation-harness, offline, on the model in memory (optional)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.schema import DownstreamConfig
from data.batches import special_prefix
from glue_eval.figures import choice_figures
from glue_eval.predictions import encode_tests
from glue_eval.prompts import Question
from glue_eval.rows import TaskRows, source_label
from glue_eval.tasks import TASKS, Task


def task_config(name: str, task: Task, questions: list[Question]) -> dict[str, Any]:
    """A task as the harness defines one: the rendered prompts, and the choices behind a space."""
    docs = [{"prompt": question.text, "label": question.row.label} for question in questions]

    def dataset(**_: Any) -> dict[str, Any]:
        from datasets import Dataset  # only where the harness runs

        return {"test": Dataset.from_list(docs)}

    return {
        "task": f"local_{name}",
        "custom_dataset": dataset,
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_target": "label",
        "doc_to_choice": list(task.choices),
        "target_delimiter": " ",
        "num_fewshot": 0,  # the shots are part of the rendered prompt
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": task.version},
    }


def run_tasks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cfg: DownstreamConfig, rows: Mapping[str, TaskRows]
) -> dict[str, dict[str, Any]]:
    """Per task the likelihood figures (names that end in _new): the harness picks the highest sum of log p.

    There is no generated text here, so the figures that read one are missing.

    Raises:
        ConfigError: the harness is not installed.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    wrapped = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=cfg.batch_size,
        add_bos_token=bool(special_prefix(tokenizer)),
    )
    offline = TaskManager(include_defaults=False)  # the harness's own tasks take long to list and live on the hub
    results = {}
    for name, part in rows.items():
        start = time.perf_counter()
        questions, too_long = encode_tests(TASKS[name], part, tokenizer, model.config)
        samples = []
        if questions:
            task = task_config(name, TASKS[name], questions)
            found = simple_evaluate(model=wrapped, tasks=[task], task_manager=offline, bootstrap_iters=0)
            samples = sorted(found["samples"][task["task"]], key=lambda sample: sample["doc_id"])
        results[name] = {
            **choice_figures([q.row.label for q in questions], [_choice(sample) for sample in samples]),
            "time": time.perf_counter() - start,
            "too_long": len(too_long),
            "too_long_rows": too_long,
            "source": source_label(cfg),
            "version": TASKS[name].version,
        }
    return results


def _choice(sample: Mapping[str, Any]) -> int:
    """The label of the highest log likelihood; the first of equals, as the harness takes it."""
    log_probs = [float(response[0]) for response in sample["filtered_resps"]]
    return max(range(len(log_probs)), key=log_probs.__getitem__)
