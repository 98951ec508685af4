"""Make the folder that downstream.data_dir names: python -m glue_eval.build_subsets --out DIR [--seed N] [--from DIR]

Without --from, class-balanced subsets of the hub's GLUE and MMLU (needs the network), from the splits that the
published subsets were drawn from; dialogue (MuTual) is neither and is only converted. With --from, the published
subsets (JSON or JSONL, files named as the tasks' own) are checked row by row and written as JSONL.

Balanced: every class is shuffled and cut to the smallest one's size; then rounds of one row of each class, in
shuffled order, follow each other. So the few-shot pool (the first 100 rows) and any number of tests are balanced too.
The same seed gives the same rows.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from config.check import ConfigError
from data.base import DataError
from files import write_lines
from glue_eval.rows import PUBLISHED_POOL, checked_rows
from glue_eval.tasks import TASKS, Task, read_row

log = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".json", ".jsonl.xz", ".jsonl.gz", ".json.xz", ".json.gz")
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


def from_hub(name: str, seed: int) -> Rows | None:
    """A task's balanced subset from the hub; None where it is not there.

    Raises:
        ConfigError: the hub cannot be reached.
    """
    if not TASKS[name].hub:
        return None
    from datasets import load_dataset  # slow to import, and not needed to convert

    repository, configuration, split = TASKS[name].hub
    try:
        rows = load_dataset(repository, configuration, split=split)
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors; datasets' cache misses ValueErrors
        raise ConfigError(
            f"{repository} {configuration}: cannot be loaded from the hub ({str(error).splitlines()[0]});"
            " where there is no network use --from DIR, a folder of the published subsets"
        ) from error
    return balanced((as_published(name, row) for row in rows), TASKS[name], seed)


def from_folder(name: str, folder: Path) -> Rows | None:
    """A task's rows from a folder of published subsets, checked by checked_rows; None where it has no such file."""
    paths = [(folder / TASKS[name].file).with_suffix(suffix) for suffix in SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    return [raw for raw, _ in checked_rows(TASKS[name], path)] if path else None


def build(out: Path, seed: int, folder: Path | None, names: Iterable[str]) -> dict[str, int]:
    """Write the subsets to `out`; return the number of rows of each.

    Raises:
        ConfigError: nothing to convert, or the hub cannot be reached.
        DataError: a row that does not fit its task.
    """
    counts = {}
    for name in names:
        rows = from_folder(name, folder) if folder else from_hub(name, seed)
        if rows is None:
            log.warning("%s: %s has no %s", name, folder or "the hub", TASKS[name].file)
            continue
        if len(rows) <= PUBLISHED_POOL:
            log.warning("%s: %d rows; tests start at row %d, so there are none", name, len(rows), PUBLISHED_POOL)
        write_lines(out / TASKS[name].file, rows)
        counts[name] = len(rows)
    if not counts:
        files = ", ".join(task.file for task in TASKS.values())
        raise ConfigError(f"--from {folder}: no subset found; the files are named {files}")
    return counts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m glue_eval.build_subsets", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--from", dest="folder", type=Path, help="folder of published subsets to check and convert")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        counts = build(args.out, args.seed, args.folder, args.tasks)
    except (ConfigError, DataError, OSError) as error:
        sys.exit(f"error: {error}")
    for name, count in counts.items():
        print(f"{name:<20}{count:>6} rows  {args.out / TASKS[name].file}")


if __name__ == "__main__":
    main()
