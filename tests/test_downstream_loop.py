"""The downstream evaluation inside a run: when it is due, and what it leaves."""

from __future__ import annotations

import json

from config.compose import compose_config
from glue_eval.evaluate import DownstreamEvaluator
from lifelong import run as lifelong_run
from report.terminal import downstream_table, metric_rows
from tests.tiny import MODELS, SITES, tiny_words

WORDS = ["downstream.tasks=[sst,cola]", "downstream.number_of_tests=4", "editor.preheat_mode=middle"]


def test_evaluates_before_the_first_step_and_after_every_n(tmp_path, capsys):
    cfg = compose_config(tiny_words("num_seq=5", "downstream_eval_steps=2", *WORDS))
    results = lifelong_run.run(cfg, tmp_path)
    assert [entry["edits"] for entry in results["downstream"]] == [0, 16, 32]
    folder = tmp_path / "glue_eval"
    for stem in ("base", "case_16", "case_32"):
        assert json.loads((folder / f"{stem}_glue.json").read_text())["sst"]["total"] == 4
        assert len((folder / f"{stem}_cola.jsonl").read_text().splitlines()) == 4
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["event"] == "downstream"]
    assert [line["edits"] for line in found] == [0, 16, 32] and found[0]["sst/f1_new"] == results["downstream"][0][
        "sst/f1_new"
    ]
    printed = capsys.readouterr().out
    assert downstream_table(found) in printed and "average" in printed


def test_the_unedited_model_is_evaluated_once(tmp_path, monkeypatch):
    asked: list[int | None] = []
    real = DownstreamEvaluator.evaluate

    def evaluate(self, model, tokenizer, edits=None, folder=None):
        asked.append(edits)
        return real(self, model, tokenizer, edits, folder)

    monkeypatch.setattr(DownstreamEvaluator, "evaluate", evaluate)

    def first(name: str, *words: str) -> dict[str, float]:
        words = (f"eval.cache_dir={tmp_path / 'kept'}", "downstream_eval_steps=3", *words)
        run_dir = tmp_path / name
        figures = lifelong_run.run(compose_config(tiny_words(*WORDS, *words)), run_dir)["downstream"][0]
        assert (run_dir / "glue_eval" / "base_glue.json").is_file()
        assert len((run_dir / "glue_eval" / "base_sst.jsonl").read_text().splitlines()) == 4
        return {key: value for key, value in figures.items() if not key.endswith("/time")}

    measured = first("a")
    assert first("b", "editor.lr=1e-3") == measured and asked == [0, 24, 24]
    first("c", "downstream.few_shots=1")
    first("d", "eval.cache_dir=null")
    assert asked == [0, 24, 24, 0, 24, 0, 24], "other questions, or nothing kept"
    words = [f"model.name_or_path={MODELS / 'tiny-gpt2'}", f"model.edit_modules=[{','.join(SITES['tiny-gpt2'])}]"]
    first("e", *words)
    assert asked[-2:] == [0, 24] and len(asked) == 9, "another model"


def test_a_run_without_downstream_evaluation_has_none(tmp_path):
    results = lifelong_run.run(compose_config(tiny_words()), tmp_path)
    assert "downstream" not in results and not (tmp_path / "glue_eval").exists()


def test_tables():
    entry = {"metric": "ES", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "protocol": "p"}
    assert metric_rows([entry | {"before": 0.25}]) == [("ES", "0.2500", "0.5000", "+0.2500", "0.400-0.600", "9", "p")]
    assert metric_rows([entry | {"low": None}]) == [("ES", "-", "0.5000", "-", "-", "9", "p")]
    table = downstream_table([{"edits": 0, "sst/f1_new": 0.5}, {"edits": 8}]).splitlines()
    assert table[2].split() == ["0", "0.5000"] and table[3].split() == ["8", "-"]
    assert downstream_table([{"edits": 0}]) == ""


def test_perplexity_of_the_shipped_text_by_a_name_below_the_project(tmp_path, monkeypatch, capsys):
    """As the experiments on real records have it by default, from whatever folder."""
    monkeypatch.chdir(tmp_path)
    real = compose_config(["experiment=real_zsre"])
    assert (real.downstream_eval_steps, real.downstream.tasks) == (real.num_seq, ["perplexity"])
    words = [f"downstream.perplexity_text={real.downstream.perplexity_text}", "downstream.tasks=[perplexity]"]
    results = lifelong_run.run(
        compose_config(tiny_words("downstream_eval_steps=3", "report=true", *words)), tmp_path / "run"
    )
    before, after = (line["perplexity/perplexity"] for line in results["downstream"])
    assert before != after and f"by edits: 0: {before:.4f}, 24: {after:.4f}" in capsys.readouterr().out
    assert (tmp_path / "run" / "report" / "figures" / "perplexity.svg").is_file()
