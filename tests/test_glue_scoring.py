"""The batched scorer against one example at a time, on three architectures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from config.schema import DownstreamBackend, DownstreamConfig
from data.base import DataError
from glue_eval.evaluate import DownstreamEvaluator
from glue_eval.predictions import NEW_TOKENS, Choice, Question, Scored, context_length, encode, fit_question
from glue_eval.rows import TaskRows, load_rows
from glue_eval.scoring import pass_sizes, perplexity, score, token_batches
from glue_eval.tasks import TASKS, render_question, render_shot

MODELS = Path(__file__).resolve().parent / "reference" / "models"
NAMES = ["tiny-llama", "tiny-gpt2", "tiny-gptj"]


@pytest.fixture(scope="module", params=NAMES)
def loaded(request):
    folder = MODELS / request.param
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(folder)


def questions(name: str, tokenizer, config, count: int = 8, shots: int = 0) -> list[Question]:
    rows = load_rows(TASKS[name], DownstreamConfig(number_of_tests=count, few_shots=shots))
    fitted = [fit_question(TASKS[name], row, rows.shots, tokenizer, context_length(config)) for row in rows.tests]
    found = [question for question in fitted if question is not None]
    assert len(found) == len(fitted)
    return found


@torch.inference_mode()
def one_at_a_time(model, tokenizer, name: str, question: Question) -> Scored:
    """The published way: generate, then a whole forward pass per choice, read from the text alone."""
    prompt = torch.tensor([tokenizer(question.text)["input_ids"]])
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
    )
    means = []
    for choice in TASKS[name].choices:
        whole = torch.tensor([tokenizer(f"{question.text} {choice}")["input_ids"]])
        same = int((whole[0, : prompt.shape[1]] == prompt[0, : whole.shape[1]]).long().cumprod(0).sum())
        log_p = model(whole).logits[0].log_softmax(-1)
        means.append(torch.stack([log_p[at - 1, whole[0, at]] for at in range(same, whole.shape[1])]).mean().item())
    return Scored(out[0, prompt.shape[1] :].tolist(), means)


def assert_same(actual: list[Scored], expected: list[Scored]) -> None:
    assert [a.new_tokens for a in actual] == [e.new_tokens for e in expected]
    for a, e in zip(actual, expected, strict=True):
        assert [math.exp(v) for v in a.log_probs] == pytest.approx([math.exp(v) for v in e.log_probs], rel=1e-4)


@pytest.mark.parametrize("name", ["sst", "cola", "mmlu", "dialogue"])
def test_equals_one_at_a_time(loaded, name):
    model, tokenizer = loaded
    asked = questions(name, tokenizer, model.config)
    assert_same(score(model, asked, 5), [one_at_a_time(model, tokenizer, name, q) for q in asked])


@pytest.mark.parametrize(("name", "shots"), [("sst", 0), ("mmlu", 0), ("rte", 2)])
def test_batch_size_never_changes_a_result(loaded, name, shots):
    model, tokenizer = loaded
    asked = questions(name, tokenizer, model.config, shots=shots)
    alone = score(model, asked, 1)
    for batch_size in (3, 100):
        assert_same(score(model, asked, batch_size), alone)
    assert_same([score(model, [q], 1)[0] for q in asked], alone)


@pytest.mark.parametrize("cost", [0, 10**6])
def test_passes_never_change_a_result(loaded, cost, monkeypatch):
    model, tokenizer = loaded
    asked = questions("nli", tokenizer, model.config)
    expected = score(model, asked, 1)
    monkeypatch.setattr("glue_eval.scoring.PASS_COST", {"cpu": cost})
    assert_same(score(model, asked, 8), expected)


def test_choices_of_several_tokens_are_scored_whole(loaded):
    """The tiny tokenizers cut "positive" into pieces, so the sst tests reach the tail pass."""
    model, tokenizer = loaded
    assert max(len(c.tokens) for q in questions("sst", tokenizer, model.config) for c in q.choices) > 1


@torch.inference_mode()
def test_choice_that_the_tokenizer_merges_with_the_prompt(loaded):
    """Where prompt + choice has other tokens at the prompt's end, both are scored from where they part."""
    model, tokenizer = loaded
    asked = questions("sst", tokenizer, model.config, count=4)
    parted = [Choice(len(asked[0].prompt) - 2, [7]), Choice(len(asked[0].prompt) - 1, [7, 8, 9])]
    moved = [len(q.prompt) - len(asked[0].prompt) for q in asked]
    merged = [
        Question(q.row, q.text, q.prompt, [Choice(c.shared + by, c.tokens) for c in parted])
        for q, by in zip(asked, moved, strict=True)
    ]
    for question, scored in zip(merged, score(model, merged, 4), strict=True):
        for choice, mean in zip(question.choices, scored.log_probs, strict=True):
            ids = torch.tensor([question.prompt[: choice.shared] + choice.tokens])
            log_p = model(ids).logits[0].log_softmax(-1)
            wanted = [log_p[choice.shared - 1 + at, token] for at, token in enumerate(choice.tokens)]
            assert mean == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-4)
    assert [s.new_tokens for s in score(model, merged, 4)] == [s.new_tokens for s in score(model, asked, 4)]


def test_repetition_penalty_and_end_as_generate(loaded, monkeypatch):
    model, tokenizer = loaded
    asked = questions("cola", tokenizer, model.config)
    plain = score(model, asked, 4)
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 1.7)
    monkeypatch.setattr(model.generation_config, "eos_token_id", [plain[0].new_tokens[1], 2])
    expected = [one_at_a_time(model, tokenizer, "cola", q) for q in asked]
    assert [e.new_tokens for e in expected] != [p.new_tokens for p in plain]
    assert_same(score(model, asked, 4), expected)


def test_model_without_an_end_token(loaded, monkeypatch):
    model, tokenizer = loaded
    asked = questions("cola", tokenizer, model.config, count=3)
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    assert [len(s.new_tokens) for s in score(model, asked, 2)] == [NEW_TOKENS] * 3


def test_only_the_needed_logits_are_computed(loaded, monkeypatch):
    model, tokenizer = loaded
    asked = questions("mmlu", tokenizer, model.config)
    positions = []
    forward = type(model).forward

    def counted(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        positions.append(out.logits.shape[1])
        return out

    monkeypatch.setattr(type(model), "forward", counted)
    score(model, asked, 4)
    longest_choice = max(len(c.tokens) for q in asked for c in q.choices)
    assert max(positions) <= longest_choice < min(len(q.prompt) for q in asked)


def test_shots_are_cut_and_the_question_never():
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny-llama")
    task = TASKS["sst"]
    rows = load_rows(task, DownstreamConfig(number_of_tests=1, few_shots=4))
    row, shots = rows.tests[0], rows.shots
    text = [render_shot(task, shot) for shot in shots]

    # both kinds of room are kept: new tokens, and the longest choice (here it is the longer)
    def needed(prompt: str) -> int:
        longest = max(len(encode(tokenizer, f"{prompt} {choice}")) for choice in task.choices)
        return max(len(encode(tokenizer, prompt)) + NEW_TOKENS, longest)

    room = needed(text[0] + text[1] + render_question(task, row))

    def fitted(context: int | None) -> str | None:
        question = fit_question(task, row, shots, tokenizer, context)
        return None if question is None else question.text

    assert fitted(room) == text[0] + text[1] + render_question(task, row)
    assert fitted(room - 1) == text[0] + render_question(task, row)
    assert fitted(None) == "".join(text) + render_question(task, row)
    alone = needed(render_question(task, row))
    assert fitted(alone) == render_question(task, row)
    assert fitted(alone - 1) is None


def test_too_long_question_is_counted_and_named(loaded, tmp_path):
    model, tokenizer = loaded
    evaluator = DownstreamEvaluator(DownstreamConfig(tasks=["sst"], number_of_tests=3), tmp_path)
    rows = evaluator.rows["sst"]
    long = type(rows.tests[1])(rows.tests[1].index, {"sentence": "very long " * 600}, 1)
    evaluator.rows["sst"] = TaskRows([], [rows.tests[0], long, rows.tests[2]])
    found = evaluator.evaluate(model, tokenizer, 20)
    assert (found["sst/total"], found["sst/too_long"]) == (2, 1)
    written = (tmp_path / "glue_eval" / "case_20_glue.json").read_text()
    assert '"too_long_rows": [\n   11\n  ]' in written
    evaluator.rows["sst"] = TaskRows([], [long])
    none = evaluator.evaluate(model, tokenizer, None)
    assert (none["sst/total"], none["sst/too_long"]) == (0, 1)
    assert "sst/f1" not in none


def test_perplexity_of_a_text(loaded, tmp_path):
    model, tokenizer = loaded
    path = tmp_path / "text.txt"
    path.write_text("The miller sold the mill, and the river went on turning its wheel. " * 12)
    ids = torch.tensor(encode(tokenizer, path.read_text()))
    head = len(ids) - len(tokenizer(path.read_text(), add_special_tokens=False)["input_ids"])
    total, count = 0.0, 0
    for part in ids[head:].split(200 - head):
        window = torch.cat([ids[:head], part])
        first = max(1, head)
        log_p = model(window[None]).logits[0].log_softmax(-1)
        total -= log_p[first - 1 : -1].gather(1, window[first:, None]).sum().item()
        count += len(window) - first
    found = perplexity(model, tokenizer, path, window=200)
    assert found["tokens"] == count
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    path.write_text("")
    with pytest.raises(DataError, match="perplexity needs at least 2"):
        perplexity(model, tokenizer, path)


def test_broken_model_leaves_finite_figures(loaded, tmp_path):
    """Editing can break a model; its evaluation must still be written."""
    model, tokenizer = loaded
    weight = model.get_output_embeddings().weight
    kept = weight.clone()
    try:
        weight.fill_(float("nan"))
        found = DownstreamEvaluator(DownstreamConfig(tasks=["sst", "mmlu"]), tmp_path).evaluate(model, tokenizer, 3)
    finally:
        weight.copy_(kept)
    assert all(math.isfinite(value) for value in found.values())
    assert found["mmlu/not_finite"] == found["mmlu/total"] == 30
    assert found["mmlu/correct_new"] == 0


def test_harness_agrees_where_choices_are_single_tokens(tmp_path):
    pytest.importorskip("lm_eval", reason="needs sh run.sh install lm_eval")
    model = AutoModelForCausalLM.from_pretrained(MODELS / "tiny-llama", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny-llama")
    assert {len(c.tokens) for q in questions("mmlu", tokenizer, model.config) for c in q.choices} == {1}
    found = {}
    for backend in (DownstreamBackend.builtin, DownstreamBackend.lm_eval_rows):
        cfg = DownstreamConfig(["mmlu"], 12, 1, backend=backend)
        found[backend.value] = DownstreamEvaluator(cfg, tmp_path / backend.value).evaluate(model, tokenizer)
    shared = [key for key in found["lm_eval_rows"] if key.endswith(("_new", "stderr", "total"))]
    assert len(shared) >= 6
    assert {key: found["lm_eval_rows"][key] for key in shared} == {key: found["builtin"][key] for key in shared}
    assert "mmlu/f1" not in found["lm_eval_rows"]
    assert (tmp_path / "lm_eval_rows" / "glue_eval" / "base_glue.json").is_file()


def test_batches_hold_what_they_may():
    lengths = [5, 90, 30, 31, 200, 7]
    batches = list(token_batches(lengths, 3, 100))
    assert sorted(at for batch in batches for at in batch) == list(range(6))
    assert batches == [[4], [1], [3, 2, 5], [0]]


def test_passes_are_cut_where_padding_costs_more():
    assert pass_sizes([100, 100, 99, 10, 10], 24) == [3, 2]
    assert pass_sizes([100, 100, 99, 10, 10], 10**6) == [5]
    assert pass_sizes([3, 2, 1], 0) == [1, 1, 1]
    assert pass_sizes([], 24) == []
