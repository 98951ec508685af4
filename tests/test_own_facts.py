"""Facts of one's own without arithmetic: how many steps, which format, what an experiment says to which editor."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir

from claims import own_facts
from config.check import ConfigError
from config.compose import FOLDER, compose_config
from config.experiments import editor_keys
from config.schema import PromptFormat
from data.base import DataError
from data.batches import steps
from data.everyday import questions
from exports.card import front_matter
from lifelong import run as lifelong_run
from lifelong import setup
from lifelong.blanks import warn_of_blanks
from lifelong.loop import Loop
from lifelong.session import Session
from lifelong.setup import warm_up_steps
from tests.tiny import DATA, MODELS, SITES, load_tiny, tiny_edits, tiny_tokenizer, tiny_words

ZSRE = json.loads((DATA / "zsre_eval.json").read_text())


def own(tmp_path: Path, count: int = 7, *more: str) -> list[str]:
    """A run on the first records of zsre as a file of one's own, on a tiny model."""
    rows = [{"prompt": row["src"], "answer": row["ans"], "unrelated": row["loc"], "unrelated_answer": row["loc_ans"]}
            for row in ZSRE[:count]]  # fmt: skip
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(rows))
    words = ["dataset=custom", "model=smollm2-135m", f"dataset.valid_path={path}", "wandb.mode=disabled"]
    words += [
        "editor=stableedit",
        "model.name=tiny-llama",
        f"model.name_or_path={MODELS / 'tiny-llama'}",
        "model_device=cpu",
    ]
    words += [f"model.edit_modules=[{','.join(SITES['tiny-llama'])}]", "editor.lr=3e-3", "eval.cache_dir=null"]
    return [*words, "report=false", "eval.examples=2", *more]


def run(run_dir: Path, argv: list[str]) -> dict[str, Any]:
    return lifelong_run.run(compose_config(argv), run_dir)


def lines_of(run_dir: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_all_records_in_one_step_without_warm_up(tmp_path):
    results = run(tmp_path / "run", own(tmp_path))
    assert results["counts"] | {"tokens": 0} == {
        "edits": 7, "steps": 1, "warm_up_steps": 0, "tokens": 0, "skipped_rows": 0
    }  # fmt: skip
    assert results["config"]["num_seq"] == 1 and results["config"]["dataset"]["prompt_format"] == "raw"
    assert len((tmp_path / "run" / "edits.jsonl").read_text().splitlines()) == 7
    assert {entry["step"] for entry in results["metrics"]} == {1}


def test_the_last_step_may_be_smaller_everywhere(tmp_path):
    words = own(tmp_path, 7, "dataset.n_edits=3", "eval.every=1", "eval.sample=7")
    results = run(tmp_path / "run", words)
    assert (results["counts"]["edits"], results["counts"]["steps"], results["config"]["num_seq"]) == (7, 3, 3)
    assert [line["edits"] for line in lines_of(tmp_path / "run", "step")] == [3, 6, 7]
    over_time = lines_of(tmp_path / "run", "over_time")
    assert [(line["step"], line["edits"]) for line in over_time] == [(0, 0), (1, 3), (2, 6), (3, 7)]
    assert over_time[-1]["n"]["now_ES"] == 1 and over_time[-1]["n"]["ES"] == 7
    assert [*over_time[-1]["retention"]] == ["1", "2", "3"]
    edits = [json.loads(line) for line in (tmp_path / "run" / "edits.jsonl").read_text().splitlines()]
    assert [edit["step"] for edit in edits] == [1, 1, 1, 2, 2, 2, 3]


def test_whole_steps_are_as_with_num_seq(tmp_path):
    open_run = run(tmp_path / "a", own(tmp_path, 6, "dataset.n_edits=3"))
    said = run(tmp_path / "b", own(tmp_path, 6, "dataset.n_edits=3", "num_seq=2"))
    assert open_run["metrics"] == said["metrics"] and open_run["config"] == said["config"]


def test_a_run_that_is_done_is_shown_again_whatever_it_left_open(tmp_path):
    words = own(tmp_path, 4, "dataset.limit=3")
    first = run(tmp_path / "run", words)
    assert lifelong_run.done_before(compose_config([*words, f"resume={tmp_path / 'run'}"]), tmp_path / "run") == first
    other = compose_config([*words, "num_seq=3", "dataset.n_edits=1", f"resume={tmp_path / 'run'}"])
    assert lifelong_run.done_before(other, tmp_path / "run") is None


def test_a_stopped_run_with_open_keys_goes_on(tmp_path, monkeypatch):
    words = own(tmp_path, 5, "dataset.n_edits=2", "checkpoint.every=1")
    whole = run(tmp_path / "whole", words)
    step = Loop.step

    def stopped(self: Loop, edits: Any, *, warm_up: bool) -> Any:
        if self.position == 2:
            raise KeyboardInterrupt
        return step(self, edits, warm_up=warm_up)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Loop, "step", stopped)
        run(tmp_path / "run", words)
    on = run(tmp_path / "run", [*words, f"resume={tmp_path / 'run'}"])
    assert on["metrics"] == whole["metrics"] and on["counts"] == whole["counts"]


@pytest.mark.parametrize(
    ("more", "edits", "num_seq"),
    [
        (["num_seq=null", "dataset.n_edits=8"], None, None),
        (["num_seq=null", "dataset.n_edits=8", "dataset.limit=11"], 11, 2),
        (["num_seq=3", "dataset.n_edits=8", "dataset.limit=11"], 11, 2),
        (["num_seq=1", "dataset.n_edits=8", "dataset.limit=11"], 8, 1),
        (["num_seq=null", "dataset.n_edits=8", "dataset.limit=100000"], None, None),
    ],
)
def test_limit_caps_the_records_of_a_published_data_set(more, edits, num_seq):
    cfg = compose_config(tiny_words(*more))
    data, _ = setup.prepare(cfg)
    found = len(ZSRE) if edits is None else edits
    assert len(data.edits) == found and cfg.edit_steps == (-(-found // 8) if num_seq is None else num_seq)
    plan = list(setup.schedule(cfg, data))
    assert [warm_up for warm_up, _ in plan] == [True] * 2 + [False] * cfg.edit_steps, (
        "the warm-up keeps its whole steps"
    )
    assert sum(len(step) for warm_up, step in plan if not warm_up) == found


@pytest.mark.parametrize(("mode", "position"), [("start", 0), ("middle", 1), ("q3", 2), ("end", 2)])
def test_the_warm_up_stands_where_the_steps_that_there_are_put_it(tmp_path, mode, position):
    words = own(tmp_path, 7, "dataset.n_edits=3", "num_seq_zsre=1", f"editor.preheat_mode={mode}")
    cfg = compose_config(words)
    data, _ = setup.prepare(cfg)
    assert [warm_up for warm_up, _ in setup.schedule(cfg, data)].index(True) == position


def test_learned_editors_train_on_whole_steps(tmp_path):
    learned = ("editor.rank=8", "editor.n_blocks=1")
    words = tiny_words("num_seq=null", "dataset.n_edits=7", "dataset.limit=10", *learned, editor="rledit")
    cfg = compose_config(words)
    data, _ = setup.prepare(cfg)
    assert (cfg.edit_steps, len(data.edits)) == (2, 10) and data.training is not None and len(data.training) == 14
    results = run(tmp_path / "run", words)
    assert (results["counts"]["steps"], results["counts"]["edits"]) == (2, 10)


def test_an_incomplete_step_comes_only_where_it_is_wanted():
    edits = tiny_edits(count=10)
    assert [len(step) for step in steps(iter(edits), 4)] == [4, 4]
    assert [len(step) for step in steps(iter(edits), 4, rest=True)] == [4, 4, 2]
    assert list(steps(iter([]), 4, rest=True)) == []


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        (["eval.every=2"], ConfigError, "eval.every=2: must be num_seq=1 or less"),
        (["num_seq=0"], ConfigError, "num_seq=0: must be a whole number above 0"),
        (["dataset.limit=0"], ConfigError, "dataset.limit=0: must be a whole number above 0"),
        (["num_seq=2"], DataError, "holds 4 records.*all of them: num_seq=null"),
        (["dataset.prompt_format=chat"], ConfigError, "dataset.prompt_format=chat: the tokenizer of .* has no chat"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_loads(tmp_path, more, error, says):
    with pytest.raises(error, match=says):
        lifelong_run.plan_run(compose_config(own(tmp_path, 4, *more)), tmp_path / "run")


def test_a_file_without_records_is_refused(tmp_path):
    words = own(tmp_path, 0)
    with pytest.raises(DataError, match=r"dataset.valid_path: .*mine.json: holds no record that can be edited"):
        setup.prepare(compose_config(words))


EMBEDDED = ["model=smollm2-135m", "dataset.train_path=null"]


@pytest.mark.parametrize(
    ("more", "becomes"),
    [
        (["dataset=custom"], PromptFormat.chat),
        (["dataset=custom", "dataset.prompt_format=raw"], PromptFormat.raw),
        (["dataset=facts", "num_seq=1", "num_seq_zsre=0"], PromptFormat.raw),
        (["dataset=facts", "num_seq=1", "num_seq_zsre=0", "dataset.prompt_format=auto"], PromptFormat.raw),
    ],
)
def test_auto_is_chat_for_questions_of_ones_own(tmp_path, caplog, more, becomes):
    caplog.set_level(logging.INFO)
    path = [word for word in own(tmp_path) if "valid_path" in word and "dataset=custom" in more]
    cfg = compose_config([*EMBEDDED, *more, *path])
    auto = cfg.dataset.prompt_format is PromptFormat.auto
    setup.prepare(cfg)
    assert cfg.dataset.prompt_format is becomes
    assert (f"dataset.prompt_format=auto: prompts are shown as {becomes.value}" in caplog.text) is auto


def test_a_session_settles_its_format(tmp_path):
    model, tokenizer = load_tiny("tiny-llama"), tiny_tokenizer("tiny-llama")
    session = Session.load(model, tokenizer=tokenizer, sites=SITES["tiny-llama"])
    assert session.cfg.dataset.prompt_format is PromptFormat.raw
    session.save(tmp_path / "saved")
    assert Session.open(tmp_path / "saved").cfg.dataset.prompt_format is PromptFormat.raw


def test_the_card_says_in_which_format_facts_were_edited(tmp_path):
    saved = ["model_cache=true", f"model_cache_dir={tmp_path / 'edited'}", "dataset.prompt_format=qa"]
    run(tmp_path / "run", own(tmp_path, 3, *saved))
    assert front_matter(tmp_path / "edited")["prompt_format"] == "qa"


@pytest.mark.parametrize(("texts", "warns"), [(["", " ", "Paris"], True), (["", "Paris"], False), ([], False)])
def test_a_warning_where_most_answers_before_editing_are_empty(tmp_path, caplog, texts, warns):
    lines = [{"ES": {"tokens": 0, "generated": text}} for text in texts] + [{"ES": {"tokens": 0}}]
    lines.append({"ES": {"tokens": 0}, "LS": {"generated": ""}})
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    warn_of_blanks(path, PromptFormat.raw)
    assert ("2 of 3 answers before editing are empty: dataset.prompt_format=raw" in caplog.text) is warns
    assert bool(caplog.records) is warns


# experiments and the editors that they were made for


def editor_of(*words: str) -> dict[str, Any]:
    return vars(compose_config(list(words)).editor)


@pytest.mark.parametrize("editor", ["stableedit", "ultraedit", "malmen", "mend", "rledit"])
def test_quickstarts_keys_are_those_of_the_editor(editor):
    found = editor_of("experiment=quickstart", f"editor={editor}")
    own_experiment = "quickstart" if editor == "stableedit" else f"quickstart_{editor}"
    assert found == editor_of(f"experiment={own_experiment}")


@pytest.mark.parametrize("experiment", ["zsre_mistral-7b", "wikibigedit_gpt-j", "ultraeditbench-2m_qwen2.5-7b"])
@pytest.mark.parametrize("editor", ["margin", "ultraedit", "malmen"])
def test_published_presets_leave_other_editors_as_they_are(experiment, editor):
    plain = editor_of(f"editor={editor}", "editor.batch_size=512", "editor.cache_dir=cache")
    assert editor_of(f"experiment={experiment}", f"editor={editor}") == plain


def test_an_experiment_that_inherits_may_say_more(tmp_path):
    (tmp_path / "experiment").mkdir()
    mine = "# @package _global_\ndefaults:\n  - quickstart\neditor:\n  lr: 7.0\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(mine)
    found = editor_of(f"hydra.searchpath=['file://{tmp_path}']", "experiment=mine")
    assert (found["lr"], found["alpha"], found["whitening_floor"]) == (7.0, 10, 1e-2)


def test_what_an_experiment_sets_for_another_editor_is_said():
    choices = {"experiment": "quickstart", "editor": "ultraedit", "dataset": "facts", "model": "smollm2-135m"}
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        words = ["experiment=quickstart", "editor=ultraedit", "editor.alpha=3", "num_seq=1"]
        said = "experiment=quickstart sets for editor=ultraedit: editor.batch_size=512, editor.lr=0.001, "
        assert editor_keys(choices, words).startswith(said) and "alpha" not in editor_keys(choices, words)
        assert editor_keys(choices, ["experiment=quickstart"]) == ""
        assert editor_keys(choices | {"experiment": None}, ["editor=ultraedit"]) == ""


def test_a_warm_up_on_facts_of_ones_own_is_what_was_asked_for():
    words = ["dataset=custom", "model=smollm2-135m", "dataset.valid_path=mine.csv"]
    assert warm_up_steps(compose_config(words)) == 0
    assert warm_up_steps(compose_config([*words, "editor=stableedit", "num_seq_zsre=2"])) == 2
    assert compose_config(["dataset=zsre"]).num_seq == 200


def test_margin_on_facts_of_ones_own_has_its_sites():
    words = ["model=smollm2-135m", "dataset=custom", "dataset.valid_path=mine.csv", "editor=margin"]
    assert compose_config(words).model.edit_modules == [f"model.layers.{at}.mlp.down_proj" for at in range(24, 28)]


def test_the_embedded_model_and_facts_of_ones_own_need_no_other_key():
    own = ["dataset=custom", "dataset.valid_path=mine.csv", "editor=stableedit"]
    cfg = compose_config(["model=smollm2-135m", *own])
    assert (cfg.editor.lr, len(cfg.model.edit_modules), cfg.dataset.n_edits) == (1.2e-3, 10, 100)
    for other in (["model=mistral-7b", "dataset=custom"], ["model=smollm2-135m", "dataset=facts"]):
        assert compose_config([*other, "editor=stableedit"]).editor.lr == 1e-6


def test_what_own_facts_give_is_measured(tmp_path):
    asked = yaml.safe_load(own_facts.ASKED.read_text())
    assert len(asked["facts"]) == 5 and not {*asked["chosen_on"], *asked["fresh"]} & {*questions()}
    assert len({*asked["chosen_on"], *asked["fresh"]}) == 40
    few = {"facts": {"The capital of Valdoria is": "Split"}, "fresh": ["The capital of France is", "The river"]}
    words = [word for word in tiny_words(editor="ultraedit") if not word.startswith(("dataset", "num_seq", "eval"))]
    faint, strong = ([*words, f"editor.lr={lr}", "dataset.n_edits=1"] for lr in (1e-12, 1e3))
    (tmp_path / "faint").mkdir()
    (tmp_path / "strong").mkdir()
    told = own_facts.measured(faint, few, tmp_path / "faint")
    assert told[1] == "fresh: 0 of 2 answers in other words, 0 from the first three on"
    told = own_facts.measured(strong, few, tmp_path / "strong")
    assert told[0].endswith("of 1") and told[1].startswith("fresh: 2 of 2")
