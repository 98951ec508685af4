"""The record files of the runs: for training, for sweeps, and each seed's edits in an order of its own; all disjoint.

python -m claims.inputs FILE KEY=VALUE ... writes what the unedited model knows (its own process, so its memory ends).

A seed is another draw and another order of the evaluation records: the editors without a network have no other
randomness.
"""

from __future__ import annotations

import json
import lzma
import random
import sys
from functools import cache
from pathlib import Path

from config.check import ConfigError
from config.compose import compose_config, dataset_config
from config.schema import Config
from data.batches import tokenize
from data.source import locate
from files import write_json, write_whole
from lifelong.answers import answers
from model import load_model, load_tokenizer, resolve_device

from .plan import Scale


@cache
def facts(split: str) -> list[str]:
    """The embedded `train` or `valid` records, a line of JSON each."""
    path = getattr(dataset_config("facts"), f"{split}_path")
    with lzma.open(locate(path), "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def unrelated_facts() -> dict[str, str]:
    """The unrelated prompts of the embedded training records, which ask for common knowledge, with their answers."""
    return {row["loc"]: row["loc_ans"] for row in map(json.loads, facts("train"))}


def write_data(out: Path, scale: Scale) -> None:
    """data/train.jsonl, data/tune.jsonl and data/eval_SEED.jsonl below `out`; a file that holds the same already stays.

    What is cached of a file goes by its time of change. Raises ConfigError where there are too few records.
    """
    edits, tune = scale.num_seq * scale.n_edits, random.Random("tune").sample(facts("valid"), scale.tune_edits)
    parts, rest = {"train": facts("train")[: scale.warm_up], "tune": tune}, sorted({*facts("valid")} - {*tune})
    if edits > len(rest):
        held = sum(map(len, parts.values()))
        raise ConfigError(f"claims: {held + edits} records are wanted, but there are only {held + len(rest)}")
    drawn = {f"eval_{seed}": random.Random(seed).sample(rest, edits) for seed in range(scale.seeds)}
    for name, records in (parts | drawn).items():
        path, content = out / "data" / f"{name}.jsonl", "\n".join(records) + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            write_whole(path, content)


def known(cfg: Config) -> list[dict[str, str]]:
    """The unrelated facts that the model answers right before any edit, in the form of known_1000.json."""
    model, asked = load_model(cfg.model, resolve_device("model_device", cfg.model_device)), unrelated_facts()
    rows = tokenize(load_tokenizer(cfg.model), list(asked.items()), cfg.dataset.prompt_format)
    found = zip(asked.items(), answers(model, rows, cfg.eval.tokens_per_batch), strict=True)
    return [{"prompt": prompt, "prediction": f" {answer.strip()}"} for (prompt, answer), one in found if one.all_right]


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), known(compose_config(sys.argv[2:])))
