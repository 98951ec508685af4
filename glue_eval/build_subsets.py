"""Make a folder for downstream.data_dir: python -m glue_eval.build_subsets --out DIR [--seed N] [--tasks NAME ...]

Class-balanced subsets of the hub's GLUE and MMLU (needs the network), from the splits that the published subsets were
drawn from; dialogue (MuTual) is neither. Where the published subsets are at hand, data_dir may name their folder.

Balanced: every class is shuffled and cut to the smallest one's size; then rounds of one row of each class, in
shuffled order, follow each other. So the few-shot pool (the first 100 rows) and any number of tests are balanced too.
The same seed gives the same rows.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from config.check import ConfigError
from data.base import DataError
from files import write_lines
from glue_eval.tasks import TASKS, Task, read_row

Rows = list[dict[str, Any]]


def balanced(rows: Iterable[Mapping[str, Any]], task: Task, seed: int) -> Rows:
    """Rows of every class in equal number, in rounds of one row of each class.

    Raises:
        DataError: a row that does not fit the task, or a class without rows.
    """
    generator = random.Random(seed)
    classes: list[Rows] = [[] for _ in task.choices]
    for index, raw in enumerate(rows):
        classes[read_row(task, raw, index).label].append(dict(raw))
    for label, found in zip(task.labels, classes, strict=True):
        if not found:
            raise DataError(f"no row has {task.label_field} {label}; a balanced subset needs every class")
        generator.shuffle(found)
    rounds = [list(members) for members in zip(*classes, strict=False)]
    for members in rounds:
        generator.shuffle(members)
    return [row for members in rounds for row in members]


def as_published(name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the hub with the fields and label values of the published subset."""
    if name == "nli":  # GLUE's rte: 0 is entailment
        label = "not_entailment" if raw["label"] else "entailment"
        return {"index": str(raw["idx"]), "sentence1": raw["sentence1"], "sentence2": raw["sentence2"], "label": label}
    if name == "sentiment_analysis":
        return {"sentence": raw["sentence"], "label": str(raw["label"])}
    return dict(raw)


def from_hub(name: str, seed: int) -> Rows:
    """A task's balanced subset from the hub.

    Raises:
        ConfigError: the hub cannot be reached.
        DataError: a row that does not fit its task.
    """
    from datasets import load_dataset  # slow to import

    repository, configuration, split = TASKS[name].hub
    try:
        rows = load_dataset(repository, configuration, split=split)
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors; datasets' cache misses ValueErrors
        raise ConfigError(
            f"{repository} {configuration}: cannot be loaded from the hub ({str(error).splitlines()[0]});"
            " where there is no network set downstream.data_dir to a folder of the published subsets"
        ) from error
    return balanced((as_published(name, row) for row in rows), TASKS[name], seed)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m glue_eval.build_subsets", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=42)
    there = [name for name, task in TASKS.items() if task.hub]
    parser.add_argument("--tasks", nargs="+", default=there, choices=there)
    args = parser.parse_args()
    try:
        for name in args.tasks:
            rows = from_hub(name, args.seed)
            write_lines(args.out / TASKS[name].file, rows)
            print(f"{name:<20}{len(rows):>6} rows  {args.out / TASKS[name].file}")
    except (ConfigError, DataError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
