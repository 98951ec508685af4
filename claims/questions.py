"""Made-up questions in the schema of zsRE: another data set for the runs, of another nature than `facts`.

Short questions about people, towns, ships and companies that do not exist (questions.yaml), each subject asked about
once. The unrelated questions are true and stand after a solved one of their kind, or a small model would answer none.
"""

from __future__ import annotations

import itertools
import json
import lzma
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from config.check import ConfigError
from config.compose import compose_config
from data.source import locate

WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("questions.yaml").read_text(encoding="utf-8"))


@cache
def facts() -> tuple[list[str], list[str]]:
    """The embedded training and evaluation records, a line of JSON each."""
    cfg = compose_config(["dataset=facts"]).dataset
    return _lines(str(cfg.train_path)), _lines(cfg.valid_path)


def _lines(path: str) -> list[str]:
    with lzma.open(locate(path), "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def unrelated_facts() -> dict[str, str]:
    """The unrelated prompts of the embedded training records, which ask for common knowledge, with their answers."""
    return {row["loc"]: row["loc_ans"] for row in map(json.loads, facts()[0])}


def unrelated_questions() -> list[tuple[str, str]]:
    """Questions of common knowledge, without their question mark, and the true answers."""
    known, rng, found = sorted(unrelated_facts().items()), random.Random(0), []
    for pattern, question in WORDS["unrelated"]:
        pairs = [(question.format(m[1]), answer) for prompt, answer in known if (m := re.fullmatch(pattern, prompt))]
        for asked, answer in pairs:
            solved, solution = rng.choice([pair for pair in pairs if pair[1] != answer])
            found.append((f"nq question: {solved}? {solution}. {asked}", answer))
    return found


@cache
def subjects() -> list[str]:
    """Every name: those of people are the ones with a space."""
    people = [f"{first} {last}" for first in WORDS["first"] for last in WORDS["last"]]
    return people + sorted({"".join(parts) for parts in itertools.product(*WORDS["syllables"])})


def questions(count: int, seed: int = 0) -> list[dict[str, str]]:
    """`count` records of the zsRE schema, each about a subject of its own.

    Raises:
        ConfigError: there are fewer subjects.
    """
    rng, unrelated = random.Random(seed), unrelated_questions()
    if count > len(subjects()):
        raise ConfigError(f"claims: {count} questions are wanted, but there are only {len(subjects())} subjects")
    records = []
    for subject in rng.sample(subjects(), count):
        relation, words = rng.choice(list(WORDS["person" if " " in subject else "place"].items()))
        source, rephrase = (wording.format(s=subject) for wording in rng.sample(words["wordings"], 2))
        answer = rng.choice(words["answers"])
        loc, loc_answer = rng.choice(unrelated)
        while answer.casefold() in f"{loc} {loc_answer}".casefold():
            loc, loc_answer = rng.choice(unrelated)
        asked = {"subject": subject, "relation": relation, "src": source, "rephrase": rephrase, "ans": answer}
        records.append({**asked, "loc": loc, "loc_ans": loc_answer})
    return records
