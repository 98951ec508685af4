"""Honest metrics: totals, locality and what is measured over time, each against a plain computation."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from config.compose import compose_config
from data.batches import tokenize
from lifelong import evaluation
from lifelong import run as lifelong_run
from lifelong.scorer import drawn
from model import fingerprint
from report.metrics import Tally, described, interval, protocol
from tests.tiny import load_tiny, run_main, tiny_edits, tiny_tokenizer, tiny_words

KNOWNS = [
    {"prompt": "The capital of France is", "prediction": " Paris"},
    {"prompt": "Water is made of hydrogen and", "prediction": " oxygen"},
]


def go(run_dir: Path, *words: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """One run: results, metric lines, per-edit lines."""
    results = lifelong_run.run(compose_config(tiny_words(*words)), run_dir)
    read = [
        [json.loads(line) for line in (run_dir / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "edits.jsonl")
    ]
    return results, *read


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run of three steps of eight edits with everything on; its model is saved."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("watched")
    (folder / "knowns.json").write_text(json.dumps(KNOWNS))
    words = ["eval.every=1", "eval.sample=7", "eval.generate=true", "eval.generate_sample=5", "eval.max_new_tokens=6"]
    words += [f"eval.knowns_path={folder}/knowns.json", "model_cache=true", f"model_cache_dir={folder}/saved"]
    return folder, *go(folder / "run", *words)


def entry(results: dict[str, Any], metric: str) -> dict[str, Any]:
    (found,) = [e for e in results["metrics"] if e["metric"] == metric]
    return found


def test_every_number_names_what_it_is(watched):
    _, results, lines, _ = watched
    names = [e["metric"] for e in results["metrics"]]
    assert len(set(names)) == len(names)
    three = ("ES", "GS", "LS")
    expected = [*three, *(f"{m}_all" for m in three), *(f"{m}_exact" for m in three), *(f"{m}_contain" for m in three)]
    assert set(names) == {*expected, "KS", "KS_all", "LS_agreement", "LS_kl", "LS_same"}
    for e in results["metrics"]:
        assert (e["edits"], e["step"]) == (24, 3) and e["protocol"] == protocol(e["metric"])
        generated = "generation" in e["protocol"]
        assert e["n"] == (
            5 if generated else 2 if e["metric"].startswith("KS") else 7 if e["metric"] == "LS_kl" else 24
        )
        assert e["metric"] == "LS_kl" or e["low"] <= e["value"] <= e["high"]
        assert lines[-1][e["metric"]] == e["value"]
    for name in three:
        assert results[name] == entry(results, name)["value"] and results["pre"][name] == entry(results, name)["before"]


def test_totals_are_the_means_of_the_lines(watched):
    _, results, _, edits = watched
    assert [line["index"] for line in edits] == list(range(24))
    assert [line["step"] for line in edits] == [1] * 8 + [2] * 8 + [3] * 8
    fields = {"": "tokens", "_all": "all", "_exact": "exact", "_contain": "contain"}
    for name in ("ES", "GS", "LS"):
        for ending, field in fields.items():
            values = [line["after"][name][field] for line in edits if field in line["after"][name]]
            if field in ("exact", "contain"):
                values = [line["after"][name][field] for line in edits if "generated" in line["after"]["GS"]]
            assert entry(results, name + ending)["value"] == pytest.approx(fmean(values)), name + ending
    same = [
        line["before"]["LS"]["generated"] == line["after"]["LS"]["generated"]
        for line in edits
        if "generated" in line["after"]["LS"]
    ]
    assert entry(results, "LS_same")["value"] == fmean(same)


def logits(model, prompt: str, answer: str) -> torch.Tensor:
    """Log-probabilities in float64 at the answer positions of one row alone."""
    (row,) = tokenize(tiny_tokenizer("tiny-llama"), [(prompt, answer)])
    positions = [t for t, label in enumerate(row.labels) if label != -100]
    with torch.no_grad():
        return model(input_ids=torch.tensor([row.input_ids])).logits[0, positions].double().log_softmax(-1)


def test_locality_against_a_plain_computation(watched):
    folder, results, lines, _ = watched
    before = load_tiny("tiny-llama")
    after = AutoModelForCausalLM.from_pretrained(folder / "saved")
    edits = tiny_edits(count=24)
    pairs = [
        (logits(before, e.unrelated, e.unrelated_answer), logits(after, e.unrelated, e.unrelated_answer)) for e in edits
    ]
    agreements = [(a.argmax(-1) == b.argmax(-1)).double().mean().item() for a, b in pairs]
    assert entry(results, "LS_agreement")["value"] == pytest.approx(fmean(agreements))
    divergences = [(a.exp() * (a - b)).sum(-1).mean().item() for a, b in pairs]
    sample = drawn(24, 7, 42)
    expected = fmean(divergences[i] for i in sample)
    assert expected > 1e-3
    assert entry(results, "LS_kl")["value"] == pytest.approx(expected, rel=1e-4)
    last = [line for line in lines if line["event"] == "over_time"][-1]
    assert last["sample"]["LS_kl"] == pytest.approx(expected, rel=1e-4)
    assert last["sample"]["LS_agreement"] == pytest.approx(fmean(agreements[i] for i in sample))


def test_over_time(watched):
    _, results, lines, edits = watched
    found = [line for line in lines if line["event"] == "over_time"]
    assert [(line["step"], line["edits"]) for line in found] == [(0, 0), (1, 8), (2, 16), (3, 24)]
    assert "immediate" not in found[0] and set(found[0]["sample"]) == {"LS", "LS_agreement", "LS_kl", "KS"}
    assert found[0]["sample"]["LS_agreement"] == 1 and abs(found[0]["sample"]["LS_kl"]) < 1e-6
    sample, last = drawn(24, 7, 42), found[-1]
    after = [line["after"] for line in edits]
    assert last["immediate"]["ES"] == pytest.approx(fmean(line["ES"]["tokens"] for line in after[16:]))
    assert last["sample"]["ES"] == pytest.approx(fmean(after[i]["ES"]["tokens"] for i in sample))
    assert last["sample"]["GS"] == pytest.approx(fmean(after[i]["GS"]["tokens"] for i in sample))
    assert last["sample"]["KS"] == entry(results, "KS")["value"]
    by_step = {str(step): [after[i]["ES"]["tokens"] for i in sample if i // 8 + 1 == step] for step in (1, 2, 3)}
    assert last["retention"] == pytest.approx({step: fmean(values) for step, values in by_step.items()})
    assert [set(line["retention"]) for line in found] == [set(), {"1"}, {"1", "2"}, {"1", "2", "3"}]


def test_examples_show_before_and_after(watched):
    _, results, _, edits = watched
    assert [e["index"] for e in results["examples"]] == drawn(24, 2, 42)
    for e in results["examples"]:
        line = edits[e["index"]]
        assert (e["prompt"], e["target"], e["step"]) == (line["prompt"], line["target"], line["step"])
        assert (e["before"], e["after"]) == (line["before"]["ES"]["generated"], line["after"]["ES"]["generated"])


def test_before_is_measured_once_for_a_sweep(tmp_path, monkeypatch):
    cache = f"eval.cache_dir={tmp_path}/cache"
    first, *_ = go(tmp_path / "a", cache)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation.Evaluation, "_write_before", lambda *_: pytest.fail("measured again"))
        again, *_ = go(tmp_path / "b", cache, "editor.alpha=1")
    assert again["pre"] == first["pre"] and again["ES"] != first["ES"]
    for change in ("seed=7", "eval.sample=3", "model.precision=bfloat16", "num_seq=2", "dataset.prompt_format=qa"):
        go(tmp_path / change, cache, change)
    assert len(list((tmp_path / "cache").glob("before-*"))) == 6
    assert not list((tmp_path / "a").glob("before-*"))


def test_a_model_that_differs_in_one_weight_matrix_is_another():
    one, two = load_tiny("tiny-llama"), load_tiny("tiny-llama")
    assert fingerprint(one.state_dict().items()) == fingerprint(two.state_dict().items())
    two.get_submodule("model.layers.2.mlp.down_proj").weight.data.mul_(1.001)
    assert fingerprint(one.state_dict().items()) != fingerprint(two.state_dict().items())


def test_a_sample_of_the_edits_scores_as_in_the_whole_run(watched, tmp_path):
    whole = watched[3]
    results, lines, edits = go(tmp_path / "run", "eval.edits=6", "eval.sample=3", "eval.every=3", "eval.examples=2")
    chosen = drawn(24, 6, 42)
    assert [line["index"] for line in edits] == chosen and {e["index"] for e in results["examples"]} <= set(chosen)
    for line in edits:
        assert line["after"]["ES"]["tokens"] == whole[line["index"]]["after"]["ES"]["tokens"]
        assert line["step"] == line["index"] // 8 + 1
    assert entry(results, "ES")["n"] == 6 and entry(results, "LS_kl")["n"] == 3
    last = [line for line in lines if line["event"] == "over_time"][-1]
    assert last["n"]["LS_agreement"] == last["n"]["ES"] == 3


def test_without_before_nothing_is_compared(tmp_path):
    results, _, edits = go(tmp_path / "run", "eval.before=false", "eval.every=3")
    names = {e["metric"] for e in results["metrics"]}
    assert names == {"ES", "GS", "LS", "ES_all", "GS_all", "LS_all"} and results["pre"] is None
    assert all("before" not in e for e in results["metrics"]) and edits[0]["before"] is None


def test_a_known_facts_file_that_is_not_there_is_named(tmp_path):
    done = run_main(*tiny_words("eval.knowns_path=nowhere.json"), cwd=tmp_path)
    assert done.returncode == 1 and "eval.knowns_path=nowhere.json" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("total", "size"), [(24, 7), (10, 10), (5, 9), (100, 1), (3, None), (7, 0)])
def test_a_draw_is_spread_and_repeats(total, size):
    found = drawn(total, size, 42)
    assert found == drawn(total, size, 42) and found == sorted(set(found))
    assert len(found) == min(total, total if size is None else size)
    assert all(0 <= i < total for i in found)
    if size and size < total:
        assert all(i * total // size <= index < (i + 1) * total // size for i, index in enumerate(found))


def test_interval():
    low, high = interval(0.5, 100)  # Wilson 1927, by hand: 0.5 +- 0.0962
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert interval(0.0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert interval(1.0, 10) == (pytest.approx(1 - 0.2775, abs=1e-4), pytest.approx(1.0))


def test_described_orders_and_leaves_out():
    tally = Tally()
    for value in (0.0, 1.0):
        tally.add("ES", value)
    tally.add("LS_kl", 0.5)
    measured = {name: (value, tally.counts[name]) for name, value in tally.means().items()}
    kl, es = described(measured, None, 2, 1)[::-1]
    assert (es["metric"], es["value"], es["n"]) == ("ES", 0.5, 2)
    assert (kl["metric"], kl["low"], kl["high"]) == ("LS_kl", None, None)
