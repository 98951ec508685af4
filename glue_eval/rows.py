"""The rows of a task: read and checked, then cut into the few-shot pool and the tests."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from config.check import ConfigError, check_numbers
from config.schema import DownstreamBackend, DownstreamConfig
from data.base import DataError
from data.source import locate
from data.stream import iter_rows
from glue_eval.tasks import PERPLEXITY, TASKS, Row, Task, read_row

log = logging.getLogger(__name__)

SAMPLE_DIR = Path(__file__).resolve().parent / "dataset"
SAMPLE_LABEL = "sample shipped with the project"
# The published subsets keep their first 100 rows for shots; the shipped sample keeps its first 10.
PUBLISHED_POOL, SAMPLE_POOL = 100, 10
SUFFIXES = (".jsonl", ".json", ".jsonl.xz", ".jsonl.gz", ".json.xz", ".json.gz")
HOW_TO_GET = "python -m glue_eval.build_subsets --out DIR, then downstream.data_dir=DIR"


@dataclass(frozen=True, slots=True)
class TaskRows:
    """A task's solved examples and its tests."""

    shots: list[Row]
    tests: list[Row]


def source_label(cfg: DownstreamConfig) -> str:
    """Where the rows come from, as every result says it."""
    return SAMPLE_LABEL if cfg.data_dir is None else str(Path(cfg.data_dir).expanduser())


def validate(cfg: DownstreamConfig) -> dict[str, TaskRows]:
    """Check every downstream key and row before a model loads; return the rows of every task but perplexity.

    Raises:
        ConfigError: an unknown task or a value that cannot work, more tests or shots than rows.
        DataError: a file or a row that is not what the task needs.
    """
    known, ours = [*TASKS, PERPLEXITY], cfg.backend is not DownstreamBackend.lm_eval
    if not cfg.tasks:
        raise ConfigError(f"downstream.tasks=[]: name at least one of {', '.join(known)}")
    for name in cfg.tasks:
        if ours and name not in known:
            raise ConfigError(f"downstream.tasks: there is no task {name}; the tasks are {', '.join(known)}")
        if cfg.tasks.count(name) > 1:
            raise ConfigError(f"downstream.tasks: {name} is named twice; name each task once")
    check_numbers(cfg, "downstream.")
    if PERPLEXITY not in cfg.tasks and cfg.perplexity_text is not None:
        log.warning("downstream.perplexity_text has no effect unless downstream.tasks names perplexity")
    elif PERPLEXITY in cfg.tasks and not locate(cfg.perplexity_text or "").is_file():
        said = "names no file" if cfg.perplexity_text is None else "no such file"
        raise ConfigError(f"downstream.perplexity_text={cfg.perplexity_text}: {said}; the task perplexity reads one")
    if cfg.backend is not DownstreamBackend.builtin and importlib.util.find_spec("lm_eval") is None:
        backend = f"downstream.backend={cfg.backend.value}"
        raise ConfigError(f"{backend}: the package lm_eval is missing: sh run.sh install lm_eval")
    if not ours:
        from glue_eval.lm_eval_tasks import check_tasks  # an optional package

        check_tasks([name for name in cfg.tasks if name != PERPLEXITY])
        return {}
    rows = {name: load_rows(TASKS[name], cfg) for name in cfg.tasks if name != PERPLEXITY}
    short = {name: len(part.tests) for name, part in rows.items() if len(part.tests) < cfg.number_of_tests}
    if short:  # the shipped sample may hold fewer than the default asks for
        listed = ", ".join(f"{name} {count}" for name, count in short.items())
        log.warning("downstream: the %s has fewer than %d tests: %s", SAMPLE_LABEL, cfg.number_of_tests, listed)
    return rows


def load_rows(task: Task, cfg: DownstreamConfig) -> TaskRows:
    """The task's shots (the first of the pool) and tests (the first after the pool).

    Raises:
        ConfigError: more tests or shots than rows.
        DataError: no such file, or a row that does not fit the task.
    """
    folder, pool = (SAMPLE_DIR, SAMPLE_POOL) if cfg.data_dir is None else (Path(cfg.data_dir), PUBLISHED_POOL)
    path = folder.expanduser() / task.file
    path = next(filter(Path.is_file, map(path.with_suffix, SUFFIXES)), path)
    try:
        raw = islice(iter_rows(path, HOW_TO_GET), pool + cfg.number_of_tests)
        rows = [read_row(task, row, index) for index, row in enumerate(raw)]
    except DataError as error:
        said = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise DataError(f"downstream.data_dir={cfg.data_dir}: {said}") from None
    shots, tests = rows[:pool], rows[pool:]
    if cfg.few_shots > len(shots):
        raise ConfigError(
            f"downstream.few_shots={cfg.few_shots}: the few-shot pool is the first {pool} rows of {path},"
            f" which has {len(rows)}; at most {len(shots)}"
        )
    capped = cfg.data_dir is None and cfg.number_of_tests == DownstreamConfig.number_of_tests and tests
    if len(tests) < cfg.number_of_tests and not capped:
        raise ConfigError(
            f"downstream.number_of_tests={cfg.number_of_tests}: {path} has {len(rows)} rows and tests start at"
            f" row {pool} (counted from 0); at most {len(tests)}"
        )
    return TaskRows(shots[: cfg.few_shots], tests)
