"""lifelong/answers.py: batches give what one prompt at a time gives; answers are compared as text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig

from config.compose import dataset_config
from config.schema import ModelConfig
from data.batches import prompt_ids
from data.source import Source
from lifelong.answers import contains, exact, first_line, generate, normalized
from model import load_model, load_tokenizer
from tests.tiny import PROJECT, SITES, load_tiny, tiny_edits, tiny_tokenizer


def one_at_a_time(model, tokenizer, prompt: list[int], max_new_tokens: int) -> str:
    """model.generate on a single prompt, no padding, no stop of ours."""
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=tokenizer.eos_token_id, pad_token_id=0
    )
    ids_BT = torch.tensor([prompt])
    output_BT = model.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), generation_config=settings)
    return first_line(tokenizer.decode(output_BT[0, len(prompt) :], skip_special_tokens=True))


@pytest.mark.parametrize("name", list(SITES))
def test_batches_of_tiny_models_agree_with_one_at_a_time(name):
    model, tokenizer = load_tiny(name), tiny_tokenizer(name)
    prompts = prompt_ids(tokenizer, [edit.prompt for edit in tiny_edits(count=12)])
    assert len(set(map(len, prompts))) > 1, "lengths must differ, or padding is not tested"
    expected = [one_at_a_time(model, tokenizer, prompt, 12) for prompt in prompts]
    assert len(set(expected)) > 1
    for budget in (1, 70, 10_000):
        assert generate(model, tokenizer, prompts, max_new_tokens=12, tokens_per_batch=budget) == expected


def test_fifty_prompts_of_the_embedded_model_agree_with_one_at_a_time():
    cfg = ModelConfig(
        name="smollm2", name_or_path="embedded:smollm2-135m", edit_modules=["model.layers.24.mlp.down_proj"]
    )
    model, tokenizer = load_model(cfg, torch.device("cpu")), load_tokenizer(cfg)
    facts = str(PROJECT / "data/facts/facts_eval.jsonl.xz")
    edits = list(Source(replace(dataset_config("facts"), n_edits=50), 42).records(facts, 1, "num_seq"))
    texts = [edit.prompt for edit in edits[:25]] + [edit.unrelated for edit in edits[:25]]
    prompts = prompt_ids(tokenizer, texts)
    found = generate(model, tokenizer, prompts, max_new_tokens=10, tokens_per_batch=1024)
    assert found == [one_at_a_time(model, tokenizer, prompt, 10) for prompt in prompts]
    assert len(set(found)) > 25


def test_generation_stops_at_a_line_break_but_not_before_any_text():
    assert first_line("\n\n Paris is it.\nMore") == "Paris is it."
    assert first_line("  \n ") == ""


@pytest.mark.parametrize(
    ("answer", "target", "is_exact", "is_contained"),
    [
        ("Paris", "paris", True, True),
        ("The Paris.", "Paris", True, True),
        ("It is Paris, France", "Paris", False, True),
        ("Parisian", "Paris", False, False),
        ("New  York", "new york", True, True),
        ("ﬁve", "five", True, True),
        ("", "Paris", False, False),
        ("?!", "?!", True, True),
        ("Lyon", "?!", False, False),
        ("The", "The", True, True),
    ],
)
def test_comparison_as_text(answer, target, is_exact, is_contained):
    assert exact(answer, target) is is_exact
    assert contains(answer, target) is is_contained


def test_normalized():
    assert normalized("  The “Old”-Man, and a Sea ") == "old man and sea"
