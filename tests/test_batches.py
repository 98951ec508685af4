"""data/batches.py: prompts and answers as tokens, sorting, padding, cutting."""

from __future__ import annotations

from itertools import count, islice

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from data.base import DataError
from data.batches import IGNORED, Tokens, micro_batches, pad, special_prefix, step_batches, steps, tokenize
from tests.tiny import MODELS, tiny_edits, tiny_tokenizer

BOS, EOS = 1, 2
PAIRS = [("Wim Ilmarin was born in the city of", "Bergen"), ("what do bees make?", "honey"), ("Ivo", "viola da gamba")]


def wrapped_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """tiny-llama's tokenizer with special tokens put around a text."""
    inner = Tokenizer.from_file(str(MODELS / "tiny-llama" / "tokenizer.json"))
    inner.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize(("name", "prefix"), [("tiny-llama", (BOS,)), ("tiny-gptj", ()), ("tiny-gpt2", ())])
def test_prefix_is_what_the_tokenizer_adds(name, prefix):
    assert special_prefix(tiny_tokenizer(name)) == prefix


@pytest.mark.parametrize(
    ("template", "prefix"), [("<s> $A </s>", (BOS,)), ("$A </s>", ()), ("<s> <s> $A", (BOS, BOS)), ("$A", ())]
)
def test_appended_specials_are_left_out(template, prefix):
    tokenizer = wrapped_tokenizer(template)
    assert special_prefix(tokenizer) == prefix
    (row,) = tokenize(tokenizer, PAIRS[:1])
    assert EOS not in row.input_ids and EOS not in row.labels
    assert row.input_ids[: len(prefix)] == list(prefix)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gptj"])
def test_answer_is_tokenized_apart_and_its_last_token_cut(name):
    tokenizer = tiny_tokenizer(name)
    for (prompt, answer), row in zip(PAIRS, tokenize(tokenizer, PAIRS), strict=True):
        prompt_ids, answer_ids = (
            tokenizer(prompt)["input_ids"],
            tokenizer(" " + answer, add_special_tokens=False)["input_ids"],
        )
        assert row.input_ids == (prompt_ids + answer_ids)[:-1]
        assert len(row.labels) == len(row.input_ids)
        assert [label for label in row.labels if label != IGNORED] == answer_ids
        # each label stands where it is predicted: one before its own place in the input
        assert row.labels[len(prompt_ids) - 1 :] == answer_ids
        assert set(row.labels[: len(prompt_ids) - 1]) <= {IGNORED}


def test_answer_gets_a_leading_space():
    tokenizer = tiny_tokenizer("tiny-llama")
    (row,) = tokenize(tokenizer, [("what do bees make?", "honey")])
    assert tokenizer.decode([label for label in row.labels if label != IGNORED]) == " honey"


def test_many_at_once_are_as_one_by_one():
    tokenizer = tiny_tokenizer("tiny-llama")
    assert tokenize(tokenizer, PAIRS) == [row for pair in PAIRS for row in tokenize(tokenizer, [pair])]
    assert tokenize(tokenizer, []) == []


def test_text_without_tokens_is_refused():
    """A vocabulary without the answer's letters drops them: nothing would be left to write."""
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"a": 0, "b": 1}, [])))
    assert len(tokenize(bare, [("ab", "ba")])[0].labels) == 3
    with pytest.raises(DataError, match="answer 'xyz' has no token"):
        tokenize(bare, [("ab", "xyz")])
    with pytest.raises(DataError, match="prompt 'xyz' has no token"):
        tokenize(bare, [("xyz", "ab")])


def rows_of(*lengths: int) -> list[Tokens]:
    """Rows that can be told apart by their ids."""
    return [Tokens([10 * i + 1] * n, [IGNORED] * (n - 1) + [10 * i + 2]) for i, n in enumerate(lengths)]


def test_padding():
    batch = pad(rows_of(3, 1))
    assert batch.input_ids_BT.tolist() == [[1, 1, 1], [11, 0, 0]]
    assert batch.attention_BT.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels_BT.tolist() == [[IGNORED, IGNORED, 2], [12, IGNORED, IGNORED]]


def test_longest_first_and_stable():
    batches = micro_batches(rows_of(2, 4, 2, 4, 3), 2)
    assert [batch.input_ids_BT[:, 0].tolist() for batch in batches] == [[11, 31], [41, 1], [21]]
    assert [batch.input_ids_BT.shape[1] for batch in batches] == [4, 3, 2]


def test_micro_batches_of_other_sizes_hold_the_same_rows():
    rows = rows_of(5, 1, 4, 4, 2, 3, 1)
    orders = [
        [i for batch in micro_batches(rows, size) for i in batch.input_ids_BT[:, 0].tolist()] for size in (1, 3, 7, 99)
    ]
    assert all(order == orders[0] for order in orders) and len(orders[0]) == 7


def test_a_step_has_three_kinds_each_sorted_on_its_own():
    tokenizer, edits = tiny_tokenizer("tiny-llama"), tiny_edits(count=7)
    step = step_batches(tokenizer, edits, 3)
    kinds = {
        "edit": [(e.prompt, e.answer) for e in edits],
        "rephrase": [(e.rephrase, e.answer) for e in edits],
        "unrelated": [(e.unrelated, e.unrelated_answer) for e in edits],
    }
    for kind, pairs in kinds.items():
        batches = getattr(step, kind)
        assert [len(batch.input_ids_BT) for batch in batches] == [3, 3, 1]
        lengths = [n for batch in batches for n in batch.attention_BT.sum(1).tolist()]
        assert lengths == sorted((len(row.input_ids) for row in tokenize(tokenizer, pairs)), reverse=True)


def test_a_step_that_trains_nobody_tokenizes_its_own_prompts_alone(monkeypatch):
    tokenizer, edits, asked = tiny_tokenizer("tiny-llama"), tiny_edits(count=7), []
    whole = step_batches(tokenizer, edits, 3)
    monkeypatch.setattr("data.batches.tokenize", lambda *words: asked.append(words[1]) or tokenize(*words))
    step = step_batches(tokenizer, edits, 3, trains=False)
    assert [pairs for pairs in asked if pairs] == [[(e.prompt, e.answer) for e in edits]]
    assert step.rephrase == step.unrelated == []
    assert all(torch.equal(a.input_ids_BT, b.input_ids_BT) for a, b in zip(step.edit, whole.edit, strict=True))


def test_steps_cut_and_drop_the_rest():
    edits = tiny_edits(count=10)
    assert [[e.row for e in step] for step in steps(iter(edits), 4)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert list(steps(iter(edits[:3]), 4)) == []
    assert len(list(steps(iter(edits), 5))) == 2


def test_steps_read_no_further_than_asked():
    endless = count()
    assert list(islice(steps(endless, 3), 2)) == [[0, 1, 2], [3, 4, 5]]
    assert next(endless) == 6
