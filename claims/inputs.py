"""The record files of the runs: for training, for sweeps, and each seed's edits in an order of its own; all disjoint.

A seed of these runs is another draw and another order of the evaluation records: the editors without a
network have no other randomness.
"""

from __future__ import annotations

import lzma
import random
from collections.abc import Sequence
from pathlib import Path

from config.check import ConfigError
from config.compose import dataset_config
from data.source import locate

from .plan import Scale
from .questions import write_changed, write_questions


def write_data(out: Path, scale: Scale) -> None:
    """data/train.jsonl, data/tune.jsonl and data/eval_SEED.jsonl below `out`, of questions data/zsre_*.json.

    Those that are there stay.

    Raises:
        ConfigError: the embedded records are too few.
    """
    facts = dataset_config("facts")
    train, evaluate = _lines(str(facts.train_path)), _lines(facts.valid_path)
    edits = scale.num_seq * scale.n_edits
    needed = edits + scale.tune_edits
    if len(train) < scale.warm_up or len(evaluate) < needed:
        held = f"{len(train)} and {len(evaluate)} records, fewer than {scale.warm_up}, {needed}"
        raise ConfigError(f"claims: facts hold {held}")
    tune = random.Random("tune").sample(evaluate, scale.tune_edits)
    rest = sorted(set(evaluate) - set(tune))
    (out / "data").mkdir(parents=True, exist_ok=True)
    write_changed(out / "data" / "train.jsonl", _joined(train[: scale.warm_up]))
    write_changed(out / "data" / "tune.jsonl", _joined(tune))
    for seed in range(scale.seeds):
        write_changed(out / "data" / f"eval_{seed}.jsonl", _joined(random.Random(seed).sample(rest, edits)))
    write_questions(out / "data", train=scale.warm_up, tune=scale.tune_edits, evaluate=edits, seeds=scale.seeds)


def _lines(path: str) -> list[str]:
    with lzma.open(locate(path), "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
