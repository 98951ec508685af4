"""The harness's own tasks, against a stand-in for lm_eval: the package is optional and not among the test's.

What is passed to it, what is read from what it returns (in the layout of lm_eval 0.4.9), and that nothing is fetched.
"""

from __future__ import annotations

import importlib.metadata
import json
import random
import socket
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch

from config.check import ConfigError
from config.compose import compose_config
from config.schema import DownstreamBackend, DownstreamConfig
from glue_eval.__main__ import table
from glue_eval.evaluate import DownstreamEvaluator
from glue_eval.predictions import choice_figures
from lifelong import run as lifelong_run
from report.metrics import interval
from report.terminal import downstream_table, shares_table
from tests.tiny import tiny_words

FOUND = {
    "gsm8k": {
        "results": {
            "gsm8k": {
                "alias": "gsm8k", "exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.1,
                "exact_match,flexible-extract": 0.5, "exact_match_stderr,flexible-extract": "N/A",
            }
        },
        "n-samples": {"gsm8k": {"original": 1319, "effective": 1319}}, "group_subtasks": {"gsm8k": []},
    },
    "mmlu": {
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.4, "acc_stderr,none": 0.02},
            "mmlu_stem": {"acc,none": 0.3}, "mmlu_law": {"acc,none": 0.5}, "mmlu_art": {"acc,none": 0.4},
        },
        "n-samples": {name: {"original": n, "effective": n} for name, n in (("a", 30), ("mmlu_law", 50), ("b", 20))},
        "group_subtasks": {"mmlu": ["mmlu_stem", "mmlu_law"], "mmlu_stem": ["a", "b"]},
    },
    "two": {
        "results": {"one": {"acc,none": 1.0}, "other": {"word_perplexity,none": 0.5}},
        "n-samples": {"one": {"effective": 4}, "other": {"effective": 5}}, "group_subtasks": {},
    },
}  # fmt: skip


@pytest.fixture
def harness(monkeypatch):
    """A stand-in for lm_eval: knows the tasks of FOUND and `absent`, whose data are not there."""
    calls: list[dict] = []

    class Manager:
        all_tasks = (*FOUND, "absent")

    def get_task_dict(names, manager):
        if "absent" in names:
            datasets.load_dataset("nobody/absent")
        assert isinstance(manager, Manager) and huggingface_hub.constants.HF_HUB_OFFLINE

    def simple_evaluate(**asked):
        assert huggingface_hub.constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        calls.append(asked)
        (name,) = asked["tasks"]
        return FOUND[name] | {"n-shot": {}, "versions": {}, "config": {}}

    package, tasks, models, hf = (ModuleType(f"lm_eval{end}") for end in ("", ".tasks", ".models", ".models.hf"))
    package.simple_evaluate, tasks.TaskManager, tasks.get_task_dict = simple_evaluate, Manager, get_task_dict
    hf.HFLM = lambda **given: SimpleNamespace(**given)
    names = ("lm_eval", "lm_eval.tasks", "lm_eval.models", "lm_eval.models.huggingface")
    for name, module in zip(names, (package, tasks, models, hf), strict=True):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "glue_eval.lm_eval_tasks", raising=False)
    package.__spec__ = ModuleSpec("lm_eval", None)
    real = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.4.9" if name == "lm_eval" else real(name))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    yield calls
    sys.modules.pop("glue_eval.lm_eval_tasks", None)


def settings(*tasks: str, **more) -> DownstreamConfig:
    return DownstreamConfig(list(tasks), backend=DownstreamBackend.lm_eval, **more)


def test_tasks_run_whole_before_and_after_a_run(harness, tmp_path, capsys):
    words = ["downstream_eval_steps=3", "downstream.backend=lm_eval", "downstream.tasks=[gsm8k,mmlu,two]"]
    results = lifelong_run.run(compose_config(tiny_words(*words)), tmp_path)
    assert [one["edits"] for one in results["downstream"]] == [0, 24]
    assert [one["tasks"] for one in harness] == [["gsm8k"], ["mmlu"], ["two"]] * 2
    for asked in harness:
        assert (asked["limit"], asked["num_fewshot"]) == (None, None), "all examples, the task's own shots"
        assert isinstance(asked["model"].pretrained, torch.nn.Module) and asked["model"].tokenizer is not None
    figures = results["downstream"][-1]
    assert (figures["gsm8k/score"], figures["gsm8k/total"]) == (0.25, 1319)
    assert (figures["gsm8k/score_low"], figures["gsm8k/score_high"]) == interval(0.25, 1319)
    assert figures["gsm8k/exact_match,flexible-extract_low"] == interval(0.5, 1319)[0]
    assert (figures["mmlu/acc"], figures["mmlu/acc_stderr"], figures["mmlu/total"]) == (0.4, 0.02, 100)
    assert "mmlu_law/acc" not in figures, "parts stand in a file of their own"
    kept = json.loads((tmp_path / "glue_eval" / "case_24_lm_eval_mmlu.json").read_text())
    assert kept["results"] == FOUND["mmlu"]["results"]
    assert figures["one/score"] == 1.0 and "other/score_low" not in figures, "a tag's tasks; a perplexity is no share"
    record = json.loads((tmp_path / "glue_eval" / "base_glue.json").read_text())
    assert record["gsm8k"]["metric"] == "exact_match,strict-match" and record["gsm8k"]["source"] == "lm_eval 0.4.9"
    lines = capsys.readouterr().out.splitlines()
    low, high = interval(0.4, 100)
    assert f"mmlu    0.4000  {low:.3f}-{high:.3f}      100".split() in [line.split() for line in lines]


def test_limits_are_passed_where_they_are_asked_for(harness, tmp_path):
    evaluator = DownstreamEvaluator(settings("gsm8k", number_of_tests=7, few_shots=2, batch_size=3), tmp_path)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    figures = evaluator.evaluate(
        SimpleNamespace(config=None, device=torch.device("cpu")), lambda *_, **__: {"input_ids": []}, 8
    )
    assert (harness[0]["limit"], harness[0]["num_fewshot"], harness[0]["model"].batch_size) == (7, 2, 3)
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2]), "the harness seeds the generators; a run goes on with its own"
    assert table(figures).splitlines()[0].split() == ["task", "accuracy", "95", "%", "interval", "n"]
    assert not huggingface_hub.constants.HF_HUB_OFFLINE, "the flags are as they were"


def test_data_that_are_not_there_are_named_and_not_fetched(harness, tmp_path, monkeypatch):
    def no(*_, **__):
        raise AssertionError("a look at the network")

    monkeypatch.setattr(socket, "getaddrinfo", no)
    monkeypatch.setattr(socket.socket, "connect", no)
    with pytest.raises(ConfigError, match=r"^downstream.tasks: absent: its data are not on this machine \(.*absent"):
        DownstreamEvaluator(settings("gsm8k", "absent"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_task_that_the_harness_does_not_know_is_named(harness, tmp_path):
    with pytest.raises(ConfigError, match="lm_eval has no task gsm9k; the nearest are gsm8k .*backend=builtin"):
        DownstreamEvaluator(settings("gsm9k"), tmp_path)


def test_accuracies_state_their_interval():
    found = choice_figures([0, 1, 1, 0], [0, 1, 0, 0])
    assert (found["accuracy_new_low"], found["accuracy_new_high"]) == interval(0.75, 4)
    empty = choice_figures([], [])
    assert empty["accuracy_new"] is empty["accuracy_new_low"] is empty["accuracy_new_high"] is None
    figures = {f"sst/{name}": value for name, value in found.items()} | {"average/accuracy_new": 0.75}
    low, high = interval(0.75, 4)
    assert shares_table(figures).splitlines()[1].split() == ["sst", "0.7500", f"{low:.3f}-{high:.3f}", "4"]
    assert len(shares_table(figures).splitlines()) == 2, "an average has no n"
    lines = [{"edits": n, "perplexity/perplexity": 12.5 + n} for n in (0, 1000)]
    assert downstream_table(lines) == "perplexity of the text, by edits: 0: 12.5000, 1,000: 1012.5000"
