"""The same rows scored by EleutherAI's lm-evaluation-harness, offline, on the model in memory (optional)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.batches import special_prefix
from glue_eval.predictions import Question, choice_figures
from glue_eval.tasks import TASKS


def harness(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> Callable[[str, Sequence[Question]], dict[str, Any]]:
    """A function of a task's name and questions that gives its likelihood figures (names that end in _new).

    The harness picks the highest sum of log p. There is no generated text here, so the figures that read one are
    missing.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    bos = bool(special_prefix(tokenizer))
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, add_bos_token=bos)
    offline = TaskManager(include_defaults=False)  # the harness's own tasks take long to list and live on the hub

    def measure(name: str, questions: Sequence[Question]) -> dict[str, Any]:
        task, choices = TASKS[name], []
        docs = Dataset.from_list([{"prompt": question.text, "label": question.row.label} for question in questions])
        asked = {
            "task": f"local_{name}",
            "custom_dataset": lambda **_: {"test": docs},
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
        if questions:
            found = simple_evaluate(model=wrapped, tasks=[asked], task_manager=offline, bootstrap_iters=0)
            for sample in sorted(found["samples"][asked["task"]], key=lambda sample: sample["doc_id"]):
                log_probs = [float(response[0]) for response in sample["filtered_resps"]]
                choices.append(log_probs.index(max(log_probs)))  # the first of equals, as the harness takes it
        return choice_figures([q.row.label for q in questions], choices)

    return measure
