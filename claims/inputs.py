"""The record files of the runs: for training, for sweeps, and each seed's edits in an order of its own; all disjoint.

python -m claims.inputs FILE KEY=VALUE ... writes what the unedited model knows (its own process, so its memory ends).

A seed is another draw and another order of the evaluation records: the editors without a network have no other
randomness. Beside the embedded facts there are made-up questions in the schema of zsRE (questions.yaml): short ones
about people, towns, ships and companies that do not exist, each subject asked about once. Their unrelated questions
are true and stand after a solved one of their kind, or a small model would answer none of them.
"""

from __future__ import annotations

import itertools
import json
import lzma
import random
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from config.check import ConfigError
from config.compose import compose_config, dataset_config
from config.schema import Config
from data.batches import tokenize
from data.source import locate
from files import write_json, write_whole
from lifelong.answers import answers
from model import load_model, load_tokenizer, resolve_device

from .plan import Scale

WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("questions.yaml").read_text(encoding="utf-8"))


@cache
def facts(split: str) -> list[str]:
    """The embedded `train` or `valid` records, a line of JSON each."""
    path = getattr(dataset_config("facts"), f"{split}_path")
    with lzma.open(locate(path), "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def unrelated_facts() -> dict[str, str]:
    """The unrelated prompts of the embedded training records, which ask for common knowledge, with their answers."""
    return {row["loc"]: row["loc_ans"] for row in map(json.loads, facts("train"))}


def unrelated_questions() -> list[tuple[str, str]]:
    """Questions of common knowledge, without their question mark, and the true answers."""
    known, rng, found = sorted(unrelated_facts().items()), random.Random(0), []
    for pattern, question in WORDS["unrelated"]:
        pairs = [(question.format(m[1]), answer) for prompt, answer in known if (m := re.fullmatch(pattern, prompt))]
        for asked, answer in pairs:
            solved, solution = rng.choice([pair for pair in pairs if pair[1] != answer])
            found.append((f"nq question: {solved}? {solution}. {asked}", answer))
    return found


def questions(count: int | None = None, seed: int = 0) -> list[dict[str, str]]:
    """So many records of the zsRE schema, each about a subject of its own; one about every subject without `count`."""
    people = map(" ".join, itertools.product(WORDS["first"], WORDS["last"]))
    names = [*people, *sorted(set(map("".join, itertools.product(*WORDS["syllables"]))))]
    rng, unrelated, records = random.Random(seed), unrelated_questions(), []
    for subject in rng.sample(names, count or len(names)):
        relation, words = rng.choice(list(WORDS["person" if " " in subject else "place"].items()))
        source, rephrase = (wording.format(s=subject) for wording in rng.sample(words["wordings"], 2))
        answer = rng.choice(words["answers"])
        loc, loc_answer = rng.choice(unrelated)
        while answer.casefold() in f"{loc} {loc_answer}".casefold():
            loc, loc_answer = rng.choice(unrelated)
        asked = {"subject": subject, "relation": relation, "src": source, "rephrase": rephrase, "ans": answer}
        records.append({**asked, "loc": loc, "loc_ans": loc_answer})
    return records


def write_data(out: Path, scale: Scale) -> None:
    """data/train.jsonl, data/tune.jsonl and data/eval_SEED.jsonl below `out`, of questions data/zsre_*.json."""
    edits, tune = scale.num_seq * scale.n_edits, random.Random("tune").sample(facts("valid"), scale.tune_edits)
    parts, rest = {"train": facts("train")[: scale.warm_up], "tune": tune}, sorted({*facts("valid")} - {*tune})
    _write(out / "data" / "{}.jsonl", parts, rest, edits, scale.seeds)
    write_questions(out / "data", train=scale.warm_up, tune=scale.tune_edits, evaluate=edits, seeds=scale.seeds)


def write_questions(folder: Path, *, train: int, tune: int, evaluate: int, seeds: int) -> None:
    """zsre_train.json, zsre_tune.json and a zsre_eval_SEED.json for each seed."""
    asked = [json.dumps(record) for record in questions()]
    parts, rest = {"train": asked[:train], "tune": asked[train : train + tune]}, asked[train + tune :]
    _write(folder / "zsre_{}.json", parts, rest, evaluate, seeds)


def _write(pattern: Path, parts: dict[str, list[str]], rest: list[str], edits: int, seeds: int) -> None:
    """A file for each part, and for each seed's edits, drawn from the rest; a file that holds the same already stays.

    What is cached of a file goes by its time of change. Raises ConfigError where the rest is too small.
    """
    if edits > len(rest):
        held = sum(map(len, parts.values()))
        raise ConfigError(f"claims: {held + edits} records are wanted, but there are only {held + len(rest)}")
    drawn = {f"eval_{seed}": random.Random(seed).sample(rest, edits) for seed in range(seeds)}
    form, between = ("[\n{}\n]\n", ",\n") if pattern.suffix == ".json" else ("{}\n", "\n")
    for name, records in (parts | drawn).items():
        path, content = Path(str(pattern).format(name)), form.format(between.join(records))
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
