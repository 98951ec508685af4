"""The made-up questions in the schema of zsRE: distinct, varied, held apart, and read as zsRE is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from claims.inputs import WORDS, questions, unrelated_questions, write_questions
from config.check import ConfigError
from config.compose import compose_config
from data.source import Source, accept_all, with_all_prompts

SIZES = {"train": 60, "tune": 40, "evaluate": 300, "seeds": 2}
Record = dict[str, object]
RELATIONS = WORDS["person"] | WORDS["place"]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return questions(14_000)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[Record]]:
    write_questions(tmp_path, **SIZES)
    return {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}


def asked(records: list[Record]) -> set[tuple[object, object]]:
    return {(record["subject"], record["relation"]) for record in records}


def test_every_subject_is_asked_about_once(records):
    assert len({record["subject"] for record in records}) == len(records) == 14_000
    assert len({record["src"] for record in records}) == len(records)
    assert Counter(record["relation"] for record in records).keys() == RELATIONS.keys()
    for record in records:
        assert record["subject"] in record["src"] and record["subject"] in record["rephrase"]
        assert record["src"] != record["rephrase"] and str(record["src"]).endswith("?")
        assert record["loc_ans"] != record["ans"] and str(record["ans"]).lower() not in str(record["loc"]).lower()


@pytest.mark.parametrize("name", [*RELATIONS])
def test_a_relation_has_wordings_and_answers(name, records):
    wordings, answers = RELATIONS[name]["wordings"], RELATIONS[name]["answers"]
    assert len(set(wordings)) == len(wordings) >= 3 and len(set(answers)) == len(answers) >= 20
    drawn = [record for record in records if record["relation"] == name]
    assert {record["ans"] for record in drawn} == set(answers)
    assert len({str(record["src"]).replace(str(record["subject"]), "{s}") for record in drawn}) == len(wordings)
    assert max(Counter(record["ans"] for record in drawn).values()) < 3 * len(drawn) / len(answers)


def test_the_seed_decides():
    assert questions(50) == questions(50) != questions(50, seed=1)


def test_unrelated_questions_are_many_and_show_a_solved_one():
    found = unrelated_questions()
    assert len(set(found)) == len(found) > 500
    assert all(prompt.startswith("nq question: ") and not prompt.endswith("?") for prompt, _ in found)
    for prompt, answer in found:
        assert not prompt.split("? ")[1].startswith(f"{answer}."), prompt
    solved = "what is the capital of France"
    assert {answer for prompt, answer in found if prompt.endswith(solved)} == {"Paris"}


def test_files_share_no_question(files):
    assert {name: len(found) for name, found in files.items()} == {
        "zsre_train.json": 60, "zsre_tune.json": 40, "zsre_eval_0.json": 300, "zsre_eval_1.json": 300,
    }  # fmt: skip
    train, tune, first, second = (asked(files[f"zsre_{name}.json"]) for name in ("train", "tune", "eval_0", "eval_1"))
    assert not train & tune and not (train | tune) & (first | second)
    assert len(first) == 300 and first != second


def test_too_few_subjects_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="30000 records are wanted, but there are only 24000"):
        write_questions(tmp_path, train=2000, tune=0, evaluate=28_000, seeds=1)
    assert not list(tmp_path.iterdir())


def test_zsre_reads_them_with_all_prompts(tmp_path):
    write_questions(tmp_path, **SIZES)
    train, evaluate = tmp_path / "zsre_train.json", tmp_path / "zsre_eval_0.json"
    words = [f"dataset.train_path={train}", f"dataset.valid_path={evaluate}", "dataset.n_edits=20"]
    cfg = compose_config(["dataset=zsre", *words]).dataset
    source = Source(cfg, seed=0, fits=with_all_prompts(accept_all, "malmen"))
    assert len(list(source.training(3))) == 60
    rows = json.loads(evaluate.read_text())
    edits = list(source.records(cfg.valid_path, 15, "num_seq"))
    for edit, row in zip(edits, rows, strict=True):
        assert (edit.prompt, edit.answer, edit.rephrase) == (row["src"], row["ans"], row["rephrase"])
        assert (edit.unrelated, edit.unrelated_answer) == (row["loc"] + "?", row["loc_ans"])


def test_only_what_differs_is_written_again(tmp_path):
    write_questions(tmp_path, **SIZES)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    content = (tmp_path / "zsre_tune.json").read_text()
    (tmp_path / "zsre_tune.json").write_text("[]")
    write_questions(tmp_path, **SIZES)
    after = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"zsre_tune.json"}
    assert (tmp_path / "zsre_tune.json").read_text() == content
