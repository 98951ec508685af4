"""The record files of the runs: training and held-out records, and each seed's edits in an order of its own.

A seed of these runs is another draw and another order of the evaluation records: the editors without a
network have no other randomness.
"""

from __future__ import annotations

import lzma
import random
from collections.abc import Sequence
from pathlib import Path

from config.check import ConfigError
from data.registry import FACTS_FILES
from data.source import locate

from .plan import Scale


def write_data(out: Path, scale: Scale) -> None:
    """data/train.jsonl, data/tune.jsonl and data/eval_SEED.jsonl below `out`; those that are there stay.

    Raises:
        ConfigError: the embedded records are too few.
    """
    train, evaluate = (_lines(path) for path in FACTS_FILES)
    needed, edits = scale.warm_up + scale.tune_edits, scale.num_seq * scale.n_edits
    if len(train) < needed or len(evaluate) < edits:
        raise ConfigError(f"claims: facts hold {len(train)} and {len(evaluate)} records, fewer than {needed}, {edits}")
    (out / "data").mkdir(parents=True, exist_ok=True)
    _write(out / "data" / "train.jsonl", train[: scale.warm_up])
    _write(out / "data" / "tune.jsonl", train[scale.warm_up : needed])
    for seed in range(scale.seeds):
        _write(out / "data" / f"eval_{seed}.jsonl", random.Random(seed).sample(evaluate, edits))


def _lines(path: str) -> list[str]:
    with lzma.open(locate(path), "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def _write(path: Path, lines: Sequence[str]) -> None:
    content = "\n".join(lines) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(content, encoding="utf-8")
    scratch.replace(path)
