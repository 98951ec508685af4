"""lifelong/answers.py: token accuracy against a plain loop, whatever the batches."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from config.compose import compose_config
from data.batches import IGNORED, Tokens, tokenize
from editor.sites import find_sites
from editor.stableedit import StableEdit
from lifelong import answers
from lifelong.answers import batched, probes
from lifelong.session import Session
from report.metrics import METRICS
from tests.tiny import SITES, load_tiny, tiny_edits, tiny_tokenizer, tiny_words


def plain_accuracy(model, row: Tokens) -> float:
    """One row alone: full logits, a Python loop over its answer."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0]
    hits = [int(logits[t].argmax()) == label for t, label in enumerate(row.labels) if label != IGNORED]
    return sum(hits) / len(hits)


def tiny_rows(name: str, count: int = 20) -> list[Tokens]:
    edits = tiny_edits(count=count)
    pairs = [(e.prompt, e.answer) for e in edits] + [(e.unrelated, e.unrelated_answer) for e in edits]
    return tokenize(tiny_tokenizer(name), pairs)


def accuracies(model, rows, tokens_per_batch: int) -> list[float]:
    """Token accuracy of each row."""
    return [answered.accuracy for answered in answers.answers(model, rows, tokens_per_batch)]


def tiny_session(dataset: str, *words: str) -> Session:
    """A session on the tiny Llama."""
    cfg, model = compose_config(tiny_words(*words, dataset=dataset)), load_tiny("tiny-llama")
    editor = StableEdit(cfg.editor, model, find_sites(model, cfg.model.edit_modules))
    return Session(cfg, model, tiny_tokenizer("tiny-llama"), editor)


@pytest.mark.parametrize("name", list(SITES))
def test_accuracy_is_that_of_a_plain_loop(name):
    model, rows = load_tiny(name), tiny_rows(name)
    expected = [plain_accuracy(model, row) for row in rows]
    assert len(set(expected)) > 1, "rows must differ, or their order is not tested"
    for tokens_per_batch in (1, 40, 100_000):
        assert accuracies(model, rows, tokens_per_batch) == pytest.approx(expected)


def test_no_rows_no_scores():
    assert accuracies(load_tiny("tiny-gptj"), [], 10) == []


@pytest.mark.parametrize("budget", [1, 7, 10, 33, 10_000])
def test_batches_respect_their_budget(budget):
    lengths = [5, 1, 9, 9, 2, 3, 3, 12, 1, 4]
    rows = [Tokens([0] * n, [0] * n) for n in lengths]
    batches = list(batched(rows, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)
    for batch in batches:
        padded = max(lengths[i] for i in batch) * len(batch)
        assert padded <= budget or len(batch) == 1
    if budget == 10_000:
        assert len(batches) == 1


def expected_score(name: str, dataset: str, count: int, mhop: bool) -> dict[str, float]:
    model, found = load_tiny(name), {}
    for edit in tiny_edits(dataset, count):
        for metric, *pair in probes(edit, mhop=mhop):
            found.setdefault(metric, []).append(plain_accuracy(model, tokenize(tiny_tokenizer(name), [tuple(pair)])[0]))
    return {metric: fmean(values) for metric, values in found.items()}


@pytest.mark.parametrize(
    ("dataset", "mhop", "names"),
    [
        ("zsre", True, ["ES", "GS", "LS"]),
        ("wikibigedit", True, ["ES", "GS", "LS", "person_score", "mhop_score"]),
        ("wikibigedit", False, ["ES", "GS", "LS", "person_score"]),
    ],
)
def test_score_is_the_mean_over_edits(dataset, mhop, names, monkeypatch):
    expected = expected_score("tiny-llama", dataset, 11, mhop)
    assert list(expected) == names
    for chunk in (256, 4):  # tokenized 256 edits at a time; the cut must not show
        monkeypatch.setattr(answers, "CHUNK", chunk)
        found = tiny_session(dataset, f"dataset.eval_mhop={mhop}", "eval.tokens_per_batch=64").score(
            tiny_edits(dataset, 11)
        )
        assert list(found) == [name for name in METRICS if name.removesuffix("_all") in names]
        assert {name: found[name] for name in names} == pytest.approx(expected)


def test_probes_ask_what_the_design_says():
    (edit,) = tiny_edits("wikibigedit", 1)
    assert probes(edit, mhop=True) == [
        ("ES", edit.prompt, edit.answer),
        ("GS", edit.rephrase, edit.answer),
        ("LS", edit.unrelated, edit.unrelated_answer),
        ("person_score", edit.persona, edit.answer),
        ("mhop_score", edit.mhop, edit.mhop_answer),
    ]


def test_padding_in_a_batch_does_not_count():
    """A row's score does not depend on its neighbours."""
    model, rows = load_tiny("tiny-llama"), tiny_rows("tiny-llama", 6)
    together = accuracies(model, rows, 100_000)
    assert together == [accuracies(model, [row], 100_000)[0] for row in rows]
