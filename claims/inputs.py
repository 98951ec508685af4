"""The record files of the runs: for training, for sweeps, and each seed's edits in an order of its own; all disjoint.

A seed of these runs is another draw and another order of the evaluation records: the editors without a
network have no other randomness.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from config.check import ConfigError
from files import write_whole

from .plan import Scale
from .questions import facts, questions, subjects


def write_data(out: Path, scale: Scale) -> None:
    """data/train.jsonl, data/tune.jsonl and data/eval_SEED.jsonl below `out`, of questions data/zsre_*.json.

    Those that are there stay.

    Raises:
        ConfigError: the embedded records are too few.
    """
    train, evaluate = facts()
    edits = scale.num_seq * scale.n_edits
    needed = edits + scale.tune_edits
    if len(train) < scale.warm_up or len(evaluate) < needed:
        held = f"{len(train)} and {len(evaluate)} records, fewer than {scale.warm_up}, {needed}"
        raise ConfigError(f"claims: facts hold {held}")
    tune = random.Random("tune").sample(evaluate, scale.tune_edits)
    rest = sorted(set(evaluate) - set(tune))
    drawn = {f"eval_{seed}": random.Random(seed).sample(rest, edits) for seed in range(scale.seeds)}
    for name, lines in {"train": train[: scale.warm_up], "tune": tune, **drawn}.items():
        _write_changed(out / "data" / f"{name}.jsonl", "\n".join(lines) + "\n")
    write_questions(out / "data", train=scale.warm_up, tune=scale.tune_edits, evaluate=edits, seeds=scale.seeds)


def write_questions(folder: Path, *, train: int, tune: int, evaluate: int, seeds: int) -> None:
    """zsre_train.json, zsre_tune.json and a zsre_eval_SEED.json for each seed, which draws from what is left.

    Raises:
        ConfigError: there are too few subjects.
    """
    records = questions(max(train + tune + evaluate, len(subjects())))
    rest = records[train + tune :]
    drawn = {f"eval_{seed}": random.Random(seed).sample(rest, evaluate) for seed in range(seeds)}
    for name, chosen in {"train": records[:train], "tune": records[train : train + tune], **drawn}.items():
        _write_changed(folder / f"zsre_{name}.json", "[\n" + ",\n".join(map(json.dumps, chosen)) + "\n]\n")


def _write_changed(path: Path, content: str) -> None:
    """Write a file only if it does not hold the content already: what is cached of it goes by its time of change."""
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        write_whole(path, content)
