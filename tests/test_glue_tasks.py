"""The table of tasks against the published one; rows, rules, figures and every error by name."""

from __future__ import annotations

import errno
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score

from config.check import ConfigError
from config.compose import compose_config
from config.schema import DownstreamBackend, DownstreamConfig
from data.base import DataError
from glue_eval import build_subsets, evaluate
from glue_eval.__main__ import table
from glue_eval.evaluate import DownstreamEvaluator
from glue_eval.predictions import averages, figures
from glue_eval.rows import SAMPLE_DIR, SAMPLE_LABEL, validate
from glue_eval.tasks import INVALID, TASKS, likelihood_choice, read_answer, read_row, render_question, render_shot
from tests.tiny import load_tiny, tiny_tokenizer, tiny_words

ROWS: dict[str, tuple[dict[str, Any], str, int]] = {
    "sst": ({"sentence": "a {fine} film ", "label": 1}, "Review :a {fine} film \nSentiment :", 1),
    "mrpc": (
        {"sentence1": "One .", "sentence2": "Two .", "label": 0},
        "Are the sentences paraphrases of each other.\nSentence 1: One .\nSentence 2: Two .\nAnswer:",
        0,
    ),
    "cola": (
        {"sentence": "Me go.", "label": 0},
        "Is this sentence linguistically acceptable?\nSentence: Me go.\nAnswer: ",
        0,
    ),
    "rte": (
        {"sentence1": "A is B.", "sentence2": "B is.", "label": 1},
        "A is B.\nquestion: B is. True or False?\nanswer:",
        1,
    ),
    "mmlu": (
        {"question": "Why?", "choices": ["p", "q", "r", "s"], "answer": 2},
        "Question: Why?\n(A) p\n(B) q\n(C) r\n(D) s\nAnswer:",
        2,
    ),
    "nli": (
        {"sentence1": "A.", "sentence2": "B.", "label": "entailment"},
        "A. entails the B. True or False? Answer:",
        1,
    ),
    "sentiment_analysis": (
        {"sentence": "Good .", "label": "1"},
        "For each snippet of text,label the sentiment of the text as positive or negative."
        "The answer should be exact 'positive' or 'negative'. text: Good . answer:",
        1,
    ),
    "dialogue": (
        {"article": "f : hi .", "options": ["p", "q", "r", "s"], "answers": "D"},
        "Q: Given the following: f : hi .\nWhich choice is correct?\n(A)p\n(B)q\n(C)r\n(D)s\nAnswer:",
        3,
    ),
}
SHOTS = {
    "sst": "Review : a {fine} film \nSentiment : positive\n",
    "cola": "Is this sentence linguistically acceptable?\nSentence: Me go.\nAnswer: No\n",
    "rte": "A is B.\nquestion: B is. True or False?\nanswer: True\n",
    "mmlu": "Question: Why?\n(A) p\n(B) q\n(C) r\n(D) s\nAnswer: C\n",
    "dialogue": "Q: Given the following: f : hi .\nWhich choice is correct?\n(A)p\n(B)q\n(C)r\n(D)s\nAnswer: D\n\n",
}


@pytest.mark.parametrize("name", TASKS)
def test_question_and_label(name):
    raw, prompt, label = ROWS[name]
    row = read_row(TASKS[name], raw, 0)
    assert (render_question(TASKS[name], row), row.label) == (prompt, label)


@pytest.mark.parametrize("name", SHOTS)
def test_shot(name):
    assert render_shot(TASKS[name], read_row(TASKS[name], ROWS[name][0], 0)) == SHOTS[name]


@pytest.mark.parametrize(
    ("name", "generated", "answer"),
    [
        ("sst", " NEGATIVE, not Positive", 1),
        ("sst", " Negative\n", 0),
        ("sst", " positive\nSentiment : none", INVALID),
        ("cola", "I do not know", 0),
        ("mrpc", " Yes and no", 1),
        ("rte", " true or false", 0),
        ("nli", " true or false", 1),
        ("mmlu", " B\n", 1),
        ("mmlu", " B", INVALID),
        ("mmlu", " D\n A\n", 0),
        ("dialogue", "", INVALID),
    ],
)
def test_reading_a_generated_answer(name, generated, answer):
    prompt = render_question(TASKS[name], read_row(TASKS[name], ROWS[name][0], 0))
    assert read_answer(TASKS[name], prompt, generated) == answer


@pytest.mark.parametrize(
    ("probabilities", "choice"),
    [
        ([0.2, 0.1], 0),
        ([0.1, 0.2], 1),
        ([0.2, 0.2], 0),
        ([math.nan] * 2, 0),
        ([0.1, 0.3, 0.2, 0.1], 1),
        ([0.3, 0.3, 0.1, 0.1], INVALID),
        ([math.nan] * 4, INVALID),
    ],
)
def test_likelihood_choice(probabilities, choice):
    assert likelihood_choice(probabilities) == choice


def test_figures():
    labels, answers, choices = [0, 0, 1, 1, 1], [0, INVALID, 1, 0, INVALID], [1, 0, 1, 1, 1]
    found = figures(labels, answers, choices, glue_flipped=True)
    counts = {key: found[key] for key in ("correct", "incorrect", "invalid", "correct_new", "incorrect_new", "total")}
    assert counts == {"correct": 2, "incorrect": 1, "invalid": 2, "correct_new": 4, "incorrect_new": 1, "total": 5}
    assert found["f1"] == pytest.approx(0.4 * 0.5 + 0.6 * 0.5)  # class 0: P 1/2 R 1/2; class 1: P 1 R 1/3
    assert found["accuracy"] == 0.4
    assert found["accuracy_stderr"] == pytest.approx(math.sqrt(0.4 * 0.6 / 4))
    # GLUE's label 0 (entailment) is what "True" says: the published scorer takes 1 for it
    said_glue = [{"False": 1, "True": 0}[TASKS["rte"].choices[c]] for c in choices]
    assert found["f1_new_glue"] == pytest.approx(f1_score(labels, said_glue, average="weighted"))
    assert found["f1_new_glue"] != found["f1_new"]


def test_averages_leave_out_what_does_not_exist():
    empty = figures([], [], [])
    assert (empty["total"], empty["f1"], empty["mcc"], empty["accuracy_stderr"]) == (0, None, None, None)
    assert averages([figures([1, 0], [1, 0], [1, 1]), empty])["accuracy"] == 1.0
    assert averages([empty]) == {}


@pytest.mark.parametrize("name", TASKS)
def test_shipped_sample(name):
    task = TASKS[name]
    rows = [json.loads(line) for line in (SAMPLE_DIR / task.file).read_text().splitlines()]
    labels = Counter(read_row(task, raw, index).label for index, raw in enumerate(rows))
    assert len(rows) >= 40
    assert len({json.dumps(row) for row in rows}) == len(rows)
    assert set(labels.values()) == {len(rows) // len(task.choices)}
    parts = validate(DownstreamConfig(tasks=[name], few_shots=10))[name]
    assert (parts.shots[-1].index, parts.tests[0].index, len(parts.tests)) == (9, 10, len(rows) - 10)


def written(folder: Path, name: str, rows: list[dict], count: int = 102) -> Path:
    (folder / TASKS[name].file).write_text("".join(json.dumps(rows[at % len(rows)]) + "\n" for at in range(count)))
    return folder


def test_published_subset_has_its_pool_first(tmp_path):
    rows = [{"sentence": f"sentence {at}", "label": at % 2} for at in range(102)]
    cfg = DownstreamConfig(["sst"], 2, 3, data_dir=str(written(tmp_path, "sst", rows)))
    part = validate(cfg)["sst"]
    assert [row.index for row in part.shots] == [0, 1, 2]
    assert [row.index for row in part.tests] == [100, 101]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": ["sst", "sstt"]}, ["downstream.tasks", "sstt", "mrpc", "perplexity"]),
        ({"tasks": []}, ["downstream.tasks=[]"]),
        ({"tasks": ["sst", "sst"]}, ["sst is named twice"]),
        ({"number_of_tests": 0}, ["downstream.number_of_tests=0"]),
        ({"few_shots": -1}, ["downstream.few_shots=-1"]),
        ({"batch_size": 0}, ["downstream.batch_size=0"]),
        ({"number_of_tests": 3}, ["downstream.number_of_tests=3", "sst2.jsonl", "102 rows", "at most 2"]),
        ({"number_of_tests": 100}, ["downstream.number_of_tests=100", "at most 2"]),
        ({"few_shots": 101}, ["downstream.few_shots=101", "first 100 rows", "at most 100"]),
        ({"data_dir": None, "number_of_tests": 31}, ["downstream.number_of_tests=31", "at most 30"]),
        ({"data_dir": None, "few_shots": 11}, ["downstream.few_shots=11", "at most 10"]),
        ({"tasks": ["perplexity"]}, ["downstream.perplexity_text=None: names no file"]),
        ({"tasks": ["perplexity"], "perplexity_text": "/no/such"}, ["downstream.perplexity_text=/no/such"]),
    ],
)
def test_bad_keys_are_named(tmp_path, changes, words):
    written(tmp_path, "sst", [ROWS["sst"][0]])
    settings = {"tasks": ["sst"], "number_of_tests": 2, "data_dir": str(tmp_path)} | changes
    with pytest.raises(ConfigError) as error:
        validate(DownstreamConfig(**settings))
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("sst", {"sentence": None}, ["sentence", "null"]),
        ("sst", {"label": 2}, ["'label' is 2", "0, 1"]),
        ("sst", {"label": True}, ["'label' is True", "0, 1"]),
        ("nli", {"label": "neutral"}, ["'label' is 'neutral'", "not_entailment, entailment"]),
        ("mmlu", {"choices": ["p", "q", "r"]}, ["'choices'", "list of 4 strings"]),
        ("mmlu", {"choices": ["p", "q", 3, "s"]}, ["choices[2]", "3"]),
        ("dialogue", {"answers": "E"}, ["'answers' is 'E'", "A, B, C, D"]),
    ],
)
def test_bad_rows_are_named(tmp_path, name, changes, words):
    rows = [ROWS[name][0]] * 101 + [ROWS[name][0] | changes]
    cfg = DownstreamConfig([name], 2, data_dir=str(written(tmp_path, name, rows)))
    with pytest.raises(DataError) as error:
        validate(cfg)
    missing = [word for word in [*words, TASKS[name].file, "row 101"] if word not in str(error.value)]
    assert missing == []


@pytest.mark.parametrize(("name", "field"), [("mrpc", "sentence2"), ("mmlu", "choices"), ("rte", "label")])
def test_missing_field_is_named(tmp_path, name, field):
    row = {key: value for key, value in ROWS[name][0].items() if key != field}
    cfg = DownstreamConfig([name], 2, data_dir=str(written(tmp_path, name, [row])))
    with pytest.raises(DataError, match=rf"row 0 .*'{field}' is missing"):
        validate(cfg)


def test_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"sst2\.jsonl.*glue_eval\.build_subsets"):
        validate(DownstreamConfig(["sst"], data_dir=str(tmp_path)))


def test_missing_harness_is_an_error_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="sh run.sh install lm_eval"):
        DownstreamEvaluator(DownstreamConfig(["sst"], backend=DownstreamBackend.lm_eval), tmp_path)


def test_sample_is_labelled_and_its_size_logged(tmp_path, caplog):
    evaluator = DownstreamEvaluator(DownstreamConfig(), tmp_path)
    assert evaluator.source == SAMPLE_LABEL
    assert "fewer than 100 tests: sst 30" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_balanced_subset_is_seeded_and_balanced_all_along():
    rows = [{"sentence": f"s {at}", "label": int(at % 10 == 0)} for at in range(200)]
    found = build_subsets.balanced(rows, TASKS["sst"], seed=1)
    assert Counter(row["label"] for row in found) == {0: 20, 1: 20}
    assert all(Counter(row["label"] for row in found[at : at + 2]) == {0: 1, 1: 1} for at in range(0, 40, 2))
    assert len({row["sentence"] for row in found}) == 40
    assert found == build_subsets.balanced(rows, TASKS["sst"], seed=1)
    assert found != build_subsets.balanced(rows, TASKS["sst"], seed=2)
    with pytest.raises(DataError, match="no row has label 1"):
        build_subsets.balanced(rows[1:9], TASKS["sst"], seed=1)


def test_hub_rows_become_published_rows():
    glue = {"sentence1": "A.", "sentence2": "B.", "label": 0, "idx": 7}
    assert read_row(TASKS["nli"], build_subsets.as_published("nli", glue), 0).label == 1
    sst = build_subsets.as_published("sentiment_analysis", {"sentence": "x", "label": 1, "idx": 3})
    assert sst == {"sentence": "x", "label": "1"}


def test_a_folder_of_published_subsets_is_read_as_it_is(tmp_path):
    rows = [ROWS["mmlu"][0] | {"question": f"q {at}?"} for at in range(103)]
    (tmp_path / "mmlu.json").write_text(json.dumps(rows))
    cfg = DownstreamConfig(["mmlu"], 3, data_dir=str(tmp_path))
    assert [row.fields["question"] for row in validate(cfg)["mmlu"].tests] == ["q 100?", "q 101?", "q 102?"]
    (tmp_path / "mmlu.json").write_text(json.dumps([*rows[:102], ROWS["mmlu"][0] | {"answer": 4}]))
    with pytest.raises(DataError, match=r"mmlu\.json: row 102 .*'answer' is 4"):
        validate(cfg)


def test_table_lists_tasks_and_perplexity():
    lines = table({"sst/f1": 0.5, "sst/total": 30, "perplexity/perplexity": 12.5, "perplexity/tokens": 40}).splitlines()
    assert lines[1].split()[:2] == ["sst", "0.5000"]
    assert lines[1].split()[-2:] == ["30", "-"]
    assert lines[2] == "perplexity 12.500 over 40 tokens"


@pytest.mark.parametrize("where", ["unwritable", "full"])
def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, where):
    """Before the first edit, so nothing that was computed is lost."""
    folder = tmp_path / "file" / "kept" if where == "unwritable" else tmp_path / "kept"
    (tmp_path / "file").write_text("in the way")
    if where == "full":

        def no_room(path, records):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(evaluate, "write_lines", no_room)
    cfg = compose_config(tiny_words("downstream.tasks=[sst]", "downstream.number_of_tests=2"))
    cfg.eval.cache_dir = str(folder)
    evaluator = DownstreamEvaluator(cfg.downstream, tmp_path / "run")
    with pytest.raises(ConfigError, match=f"eval.cache_dir={folder}: .*name another folder, or null"):
        evaluate.abilities_before(cfg, evaluator, load_tiny("tiny-llama"), tiny_tokenizer("tiny-llama"))
    assert not list(tmp_path.glob("kept/abilities*"))


def test_subsets_that_cannot_be_written_are_an_error_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(build_subsets, "from_hub", lambda name, seed: [ROWS["sst"][0]])
    monkeypatch.setattr("sys.argv", ["build_subsets", "--out", str(tmp_path / "file"), "--tasks", "sst"])
    with pytest.raises(SystemExit, match=f"error: .*{tmp_path / 'file'}"):
        build_subsets.main()


def test_the_hub_out_of_reach_is_an_error_that_says_what_else_to_do(monkeypatch):
    def none(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", none)
    with pytest.raises(ConfigError, match="cannot be loaded from the hub .no network.; .* set downstream.data_dir"):
        build_subsets.from_hub("sst", 0)


def test_the_table_of_tasks_holds_strings():
    """A bare Yes or 0 is none in yaml."""
    for name, task in TASKS.items():
        for text in [task.file, task.question, *task.choices, *task.labels, *(word for word, _ in task.rules)]:
            assert isinstance(text, str), (name, text)
