"""Tasks of EleutherAI's lm-evaluation-harness, as it has them and at full size, on the model in memory (optional).

Nothing is fetched: a task whose data are not in the cache of `datasets` is refused before a model loads.
"""

from __future__ import annotations

import difflib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager, get_task_dict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError
from config.schema import DownstreamConfig
from config.sizes import at_once
from data.batches import special_prefix
from files import finite, write_json
from report.metrics import interval

SHARES = ("acc", "acc_norm", "exact_match")
"""Metrics of the harness that are means of numbers between 0 and 1, for which Wilson's interval is defined."""


@contextmanager
def offline() -> Iterator[None]:
    """The hub's libraries read their caches only."""
    places = [(huggingface_hub.constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")]
    before = [getattr(*place) for place in places]
    try:
        for module, name in places:
            setattr(module, name, True)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


@contextmanager
def own_randomness() -> Iterator[None]:
    """The harness seeds the process's generators; a run in the middle of editing gets them back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(numpy)


def check_tasks(names: Sequence[str]) -> None:
    """Refuse what the harness does not know, and what it would have to fetch.

    Raises:
        ConfigError: names the task.
    """
    manager = TaskManager()
    for name in names:
        if name not in manager.all_tasks:
            nearest = difflib.get_close_matches(name, manager.all_tasks, n=3)
            close = ", ".join(nearest) or "listed by: lm_eval --tasks list"
            raise ConfigError(
                f"downstream.tasks: lm_eval has no task {name}; the nearest are {close} "
                "(our own rows: downstream.backend=builtin or lm_eval_rows)"
            )
        try:
            with offline():
                get_task_dict([name], manager)
        except Exception as error:  # whatever the code of a task raises without its data
            said = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConfigError(
                f"downstream.tasks: {name}: its data are not on this machine ({said}); where there is a network: "
                f"python -c \"from lm_eval.tasks import get_task_dict as get; get(['{name}'])\""
            ) from error


def run_tasks(
    names: Sequence[str], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cfg: DownstreamConfig, stem: Path
) -> dict[str, dict[str, Any]]:
    """The tasks' figures by name; what the harness says of a task and its parts goes to STEM_lm_eval_NAME.json.

    All examples and the task's own number of shots, unless number_of_tests or few_shots are not at their defaults.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    bos, manager = bool(special_prefix(tokenizer)), TaskManager()
    together = at_once("downstream.batch_size", cfg.batch_size, model.device.type)
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=together, add_bos_token=bos)
    limit = None if cfg.number_of_tests == DownstreamConfig.number_of_tests else cfg.number_of_tests
    asked = {"num_fewshot": cfg.few_shots or None, "limit": limit, "bootstrap_iters": 1000, "log_samples": False}
    figures: dict[str, dict[str, Any]] = {}
    for name in names:
        with offline(), own_randomness():
            found = simple_evaluate(model=wrapped, tasks=[name], task_manager=manager, **asked)
        kept = {part: found[part] for part in ("results", "n-samples", "n-shot", "versions", "group_subtasks")}
        write_json(Path(f"{stem}_lm_eval_{name.replace('/', '_')}.json"), finite(kept))
        rows = found["results"]  # a tag has no row of its own, only its tasks
        figures |= {row: told(row, found) for row in ([name] if name in rows else rows)}
    return figures


def told(row: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A row's numbers; `score` is the first of its metrics, _low and _high Wilson's interval where it is a share."""
    numbers = {
        key.removesuffix(",none"): float(value)
        for key, value in found["results"][row].items()
        if "," in key and isinstance(value, int | float)
    }
    total = samples(row, found)
    for key, value in list(numbers.items()):
        if key.partition(",")[0] in SHARES and total and 0 <= value <= 1:
            numbers[f"{key}_low"], numbers[f"{key}_high"] = interval(value, total)
    main = next((key for key in numbers if "_stderr" not in key), "")
    score = {f"score{end}": numbers[main + end] for end in ("", "_low", "_high") if main + end in numbers}
    return score | numbers | {"metric": main, "total": total, "source": f"lm_eval {version('lm_eval')}"}


def samples(row: str, found: Mapping[str, Any]) -> int:
    """How many examples a row is over; of a group those of its tasks."""
    if row in found["n-samples"]:
        return int(found["n-samples"][row]["effective"])
    return sum(samples(part, found) for part in found["group_subtasks"].get(row, ()) if part != row)
