"""References that are no editors: the unedited model, the fact in the prompt, plain fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import ConfigCompositionException
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config.check import ConfigError
from config.compose import compose_config
from data.base import DataError
from data.batches import IGNORED, Tokens, tokenize
from editor import finetune
from editor.capture import weight_gradients
from editor.finetune import Finetune, end_of_text, rows_of
from editor.registry import editor_class
from lifelong import Session
from lifelong import run as lifelong_run
from lifelong.answers import answers
from lifelong.setup import prepare
from lifelong.tune import tune
from nets import NumericsError
from tests import test_continue as continued
from tests.test_resume import assert_resumed_is_uninterrupted, run
from tests.test_session import copied, opened_again, same
from tests.tiny import (
    DATA,
    MODELS,
    PROJECT,
    SITES,
    load_tiny,
    run_main,
    tiny_batch,
    tiny_edits,
    tiny_tokenizer,
    tiny_words,
)

EDITS = tiny_edits(count=24)
REFERENCES: dict[str, list[str]] = {
    "none": [],
    "in_context": [],
    "finetune": ["editor.epochs=3", "editor.batch=5"],
    "finetune over all": ["editor.epochs=3", "editor.batch=5", "editor.over=all"],
}


def words(which: str, *more: str) -> list[str]:
    """A run of a second."""
    found = tiny_words("eval.every=1", "eval.sample=9", *REFERENCES[which], *more, editor=which.partition(" ")[0])
    return [word for word in found if word != "editor.lr=3e-3"]


def opened(editor: str, model: str = "tiny-llama", **more: Any) -> Session:
    """A session on a tiny model."""
    return Session.load(str(MODELS / model), editor=editor, sites=SITES[model], device="cpu", **more)


def lines_of(folder: Path, name: str = "edits.jsonl") -> list[dict[str, Any]]:
    """What a run wrote, line by line."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


# plain fine-tuning


def by_hand(model_name: str, steps: list[list[Tokens]], dtype: torch.dtype, *, epochs: int, size: int) -> list[Tensor]:
    """Adam of PyTorch over the model's own parameters and logits, a sequence at a time; the weights."""
    model = load_tiny(model_name).to(dtype)
    weights = [model.get_submodule(name).weight for name in SITES[model_name]]
    assert all(isinstance(weight, nn.Parameter) for weight in weights)
    for weight in weights:
        weight.requires_grad_(True)
    for rows in steps:
        adam = torch.optim.Adam(weights, lr=5e-4)
        for _ in range(epochs):
            for start in range(0, len(rows), size):
                losses = []
                for row in rows[start : start + size]:
                    logits = model(torch.tensor([row.input_ids])).logits[0]
                    losses.append(cross_entropy(logits, torch.tensor(row.labels), reduction="none", ignore_index=-100))
                answers_seen = sum(label != IGNORED for row in rows[start : start + size] for label in row.labels)
                adam.zero_grad()
                (torch.cat(losses).sum() / answers_seen).backward()
                adam.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("over", ["step", "all"])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gpt2"])
def test_fine_tuning_is_plain_adam(model: str, over: str) -> None:
    tokenizer, end = tiny_tokenizer(model), tiny_tokenizer(model).eos_token_id
    session = opened("finetune", model, epochs=4, batch=5, floor=0, over=over, tokens_per_pass=40, format="raw")
    cuts = [EDITS[:12], EDITS[12:20]]
    for cut in cuts:
        session.edit(cut)
    steps = []
    for cut in cuts:  # longest first, as a step has them; the end of text behind the answer
        found = tokenize(tokenizer, [(edit.prompt, edit.answer) for edit in cut])
        found = sorted(found, key=lambda row: -len(row.input_ids))
        steps.append([Tokens([*row.input_ids, row.labels[-1]], [*row.labels, end]) for row in found])
    if over == "all":
        steps = [steps[0], steps[0] + steps[1]]
    wanted = {dtype: by_hand(model, steps, dtype, epochs=4, size=5) for dtype in (torch.float32, torch.float64)}
    start = [load_tiny(model).get_submodule(name).weight.detach() for name in SITES[model]]
    for dtype in wanted:
        for name, before, plain in zip(SITES[model], start, wanted[dtype], strict=True):
            ours = session.model.get_submodule(name).weight
            moved = plain.float() - before
            assert moved.norm() > 0.01 * before.norm()
            assert (ours - before - moved).norm() < 1e-5 * moved.norm()


def test_the_end_of_text_is_what_follows_the_answer() -> None:
    batch = tiny_batch("tiny-llama", 5)
    for row, ids, labels in zip(rows_of([batch], 2), batch.input_ids_BT, batch.labels_BT, strict=True):
        length = len(row.input_ids) - 1
        answer = [label for label in labels.tolist() if label != IGNORED]
        assert row.input_ids[:length] == ids[:length].tolist() and [x for x in row.labels if x >= 0] == [*answer, 2]
        assert row.input_ids[-len(answer) :] == answer
    assert rows_of([batch], None)[0].input_ids == batch.input_ids_BT[0].tolist()
    assert end_of_text(load_tiny("tiny-gptj")) == 2


def test_no_update_below_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    floor, losses, update = 2.2, list[float](), Finetune._update  # the tiny model cannot learn much better
    session = opened("finetune", lr=1e-3, epochs=50, batch=5, floor=floor)

    def seen(*args: Any) -> float:
        losses.append(update(*args))
        return losses[-1]

    monkeypatch.setattr(Finetune, "_update", seen)
    step = session.edit(EDITS[:10])
    assert 4 < len(losses) < 100 and max(losses[-2:]) < floor < max(losses[-4:-2])
    assert step.loss == sum(losses[:2]) / 2 > floor
    before = copied(session)
    losses.clear()
    again = session.edit(EDITS[:10])  # learned already
    assert len(losses) == 2 and all(site.shift_norm == 0 for site in again.sites.values())
    assert all(torch.equal(before[name], value) for name, value in session.tensors().items() if "weight" in name)


def test_masters_keep_what_bfloat16_loses() -> None:
    options: dict[str, Any] = {"precision": "bfloat16", "lr": 1e-5, "epochs": 3}
    kept, plain = opened("finetune", float32_masters=True, **options), opened("finetune", **options)
    steps = [[session.edit(EDITS[start : start + 8]) for start in (0, 8)] for session in (kept, plain)]
    for site in kept.editor.sites:
        started = load_tiny("tiny-llama", torch.bfloat16).get_submodule(site.name).weight.float()
        assert site.master is not None and torch.equal(site.weight, site.master.bfloat16())
        assert 0 < (site.master - started).abs().max() < 1e-4  # six steps of Adam at most
        # without masters most of that is below half a unit in the last place
        assert steps[1][0].sites[site.name].lost_share > 0.5


@pytest.mark.parametrize(
    ("factor", "divisor", "says"), [(float("inf"), 1, "the loss is inf"), (1, 0, "layers.2.*: the shift is not finite")]
)
def test_what_is_not_finite_leaves_everything_as_it_was(
    factor: float, divisor: float, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened("finetune", over="all", epochs=2)
    session.edit(EDITS[:8])
    before, calls = copied(session), list[float]()

    def broken(*args: Any) -> tuple[Tensor, list[Tensor]]:
        loss, (first, second, *rest) = weight_gradients(*args)
        calls.append(1)
        return (loss * factor, [first, second / divisor, *rest]) if len(calls) == 4 else (loss, [first, second, *rest])

    monkeypatch.setattr(finetune, "weight_gradients", broken)
    monkeypatch.setattr(session.editor.cfg, "batch", 8)
    with pytest.raises(NumericsError, match=says):
        session.edit(EDITS[8:16])
    assert same(copied(session), before)


def test_a_step_size_is_searched_where_the_grid_is_named(tmp_path: Path) -> None:
    argv = words("finetune", "tune=true", "num_seq=1", "tune_edits=8", "tune_trials=2", "eval.every=0")
    with pytest.raises(ConfigError, match=r"tune_lr=null: shifts of editor=finetune do not grow"):
        tune(compose_config(argv), tmp_path, argv)
    with pytest.raises(ConfigError, match=r"editor=in_context has no step size"):
        tune(compose_config(words("in_context", "tune=true")), tmp_path, [])
    argv.append("tune_lr=[1e-4,1e-2]")
    trials = tune(compose_config(argv), tmp_path, argv)["tune"]["trials"]
    assert len(trials) == 2 and trials[0]["lr"] != trials[1]["lr"]
    assert trials[0]["relative_shift"] != trials[1]["relative_shift"]


# the fact in the prompt


def scored_by_hand(pairs: list[tuple[str, str]]) -> list[float]:
    """Share of right answer tokens of the untouched tiny model."""
    rows = tokenize(tiny_tokenizer("tiny-llama"), pairs)
    return [one.accuracy for one in answers(load_tiny("tiny-llama"), rows, 2048)]


def test_every_prompt_of_an_edit_is_scored_behind_its_fact(tmp_path: Path) -> None:
    run(tmp_path, words("in_context"))
    lines = lines_of(tmp_path)
    fronts = [f"{line['prompt']} {line['target']}\n" for line in lines]
    assert len(lines) == 24
    for metric, prompt, answer in (
        ("ES", "prompt", "target"), ("GS", "rephrase", "target"), ("LS", "unrelated", "unrelated_target"),
    ):  # fmt: skip
        pairs = [(line[prompt], line[answer]) for line in lines]
        behind = [(front + ask, say) for front, (ask, say) in zip(fronts, pairs, strict=True)]
        assert [line["before"][metric]["tokens"] for line in lines] == scored_by_hand(pairs)
        assert [line["after"][metric]["tokens"] for line in lines] == scored_by_hand(behind)
    assert any(line["before"]["GS"] != line["after"]["GS"] for line in lines)


def test_over_time_the_facts_stand_before_what_was_edited(tmp_path: Path) -> None:
    run(tmp_path, words("in_context"))
    found = [line for line in lines_of(tmp_path, "metrics.jsonl") if line["event"] == "over_time"]
    edits, step = lines_of(tmp_path), 2
    now = [(f"{e['prompt']} {e['target']}\n{e['prompt']}", e["target"]) for e in edits if e["step"] == step]
    assert found[step]["immediate"]["ES"] == pytest.approx(sum(scored_by_hand(now)) / len(now))
    assert found[0]["sample"]["LS_agreement"] == 1.0 and found[0]["sample"]["LS_kl"] < 1e-6  # nothing was edited yet


def test_a_session_puts_facts_before_prompts_once_they_are_written() -> None:
    session, first = opened("in_context", format="raw"), EDITS[:8]
    plain = scored_by_hand([(edit.prompt, edit.answer) for edit in first])
    assert session.score(first)["ES"] == pytest.approx(sum(plain) / 8)
    session.edit(first)
    behind = scored_by_hand([(f"{edit.prompt} {edit.answer}\n{edit.prompt}", edit.answer) for edit in first])
    assert session.score(first)["ES"] == pytest.approx(sum(behind) / 8) and behind != plain
    assert session.score(EDITS[8:16])["ES"] == opened("none", format="raw").score(EDITS[8:16])["ES"]
    session.undo()
    assert session.score(first)["ES"] == pytest.approx(sum(plain) / 8)


def test_a_prompt_that_fits_only_without_its_fact_is_refused_before_the_model_loads(tmp_path: Path) -> None:
    record = {"prompt": "word " * 120, "answer": "yes"}
    (tmp_path / "one.json").write_text(json.dumps([record]))
    more = [f"dataset.valid_path={tmp_path}/one.json", "num_seq=1", "dataset.n_edits=1", "model=smollm2-135m"]
    facts = ["dataset=custom", *more, f"model.name_or_path={MODELS / 'tiny-llama'}"]
    facts += [f"model.edit_modules=[{SITES['tiny-llama'][0]}]", "wandb.mode=disabled", "model_device=cpu"]
    tokens = len(tokenize(tiny_tokenizer("tiny-llama"), [(record["prompt"].strip(), "yes")])[0].input_ids)
    assert 256 < tokens < 512, "one must fit, two must not"
    lifelong_run.plan_run(compose_config([*facts, "editor=none"]), tmp_path / "none")
    with pytest.raises(ValueError, match="the model's context is 512"):
        lifelong_run.plan_run(compose_config([*facts, "editor=in_context"]), tmp_path / "in_context")


# nothing at all


def test_nothing_is_changed_without_an_editor(tmp_path: Path) -> None:
    results = run(tmp_path / "run", words("none", "model_cache=true", f"model_cache_dir={tmp_path / 'model'}"))
    edited = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(edited[name], value) for name, value in load_tiny("tiny-llama").state_dict().items())
    for line in lines_of(tmp_path / "run"):
        assert line["before"] == line["after"]
    assert {name: results[name] for name in results["pre"]} == results["pre"] and results["ES"] > 0
    steps = [line for line in lines_of(tmp_path / "run", "metrics.jsonl") if line["event"] == "step"]
    assert len(steps) == 3 and all(site["shift_norm"] == 0 for line in steps for site in line["sites"].values())
    stable = run(tmp_path / "other", tiny_words("num_seq_zsre=0", "eval.every=1", "eval.sample=9"))
    other = [line for line in lines_of(tmp_path / "other", "metrics.jsonl") if line["event"] == "step"]
    assert stable["pre"] == results["pre"] and steps[0]["loss"] == pytest.approx(other[0]["loss"], rel=1e-5)


# all of them


@pytest.mark.parametrize("which", REFERENCES)
def test_a_resumed_run_is_the_uninterrupted_one(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = words(which, "checkpoint.every=1")
    assert_resumed_is_uninterrupted(argv, tmp_path, monkeypatch)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("editor", "keys"), [("in_context", {}), ("finetune", {"over": "step"}), ("finetune", {"over": "all"})]
)
def test_undo_and_open_are_bitwise(editor: str, keys: dict[str, Any], precision: str, tmp_path: Path) -> None:
    keys = keys | ({"epochs": 2} if keys else {})
    session = opened(editor, precision=precision, **keys)
    states = [copied(session)]
    for start in (0, 8, 16):
        session.edit(EDITS[start : start + 8])
        states.append(copied(session))
        assert not same(*states[-2:])
    session.undo()
    assert same(copied(session), states[2])
    opened_again(session, states, tmp_path)


@pytest.mark.parametrize("key", ["alpha", "rank", "token", "RunningMeanStd_mode", "preheat_mode", "save_checkpoint"])
@pytest.mark.parametrize("editor", ["none", "in_context", "finetune"])
def test_keys_of_editors_are_not_theirs(editor: str, key: str) -> None:
    with pytest.raises(ConfigCompositionException) as refused:
        compose_config([f"editor={editor}", f"editor.{key}=1"])
    assert f"Key '{key}' not in" in str(refused.value.__cause__)
    names = {"name", "batch_size", "tokens_per_pass", "cache_dir", "float32_masters"}
    more = {"lr", "batch", "epochs", "floor", "over"} if editor == "finetune" else set()
    assert set(vars(compose_config([f"editor={editor}"]).editor)) == names | more
    assert not editor_class(editor).trains


@pytest.mark.parametrize("experiment", ["quickstart", "zsre_mistral-7b"])
def test_they_take_the_place_of_an_editor_in_every_experiment(experiment: str) -> None:
    for editor in ("none", "in_context", "finetune"):
        assert compose_config([f"experiment={experiment}", f"editor={editor}"]).editor.name == editor


def test_a_sweep_compares_them(tmp_path: Path) -> None:
    argv = [word for word in words("none", "num_seq=2", "eval.every=0") if word != "editor=none"]
    done = run_main("-m", *argv, "editor=none,in_context,finetune", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0 and "3 of 3 jobs done" in done.stdout, done.stdout + done.stderr


# experiments on real records


def test_training_in_the_edited_file_reads_what_is_behind_the_edits(tmp_path: Path) -> None:
    file = f"{DATA}/zsre_eval.json"
    argv = tiny_words(f"dataset.train_path={file}", f"dataset.valid_path={file}", "num_seq=1", "num_seq_zsre=1")
    data, _ = prepare(compose_config(argv))
    assert data.training is not None
    assert [edit.row for edit in data.edits] == list(range(8))
    assert [edit.row for edit in data.training] == list(range(8, 16)) and len(data.training) == 8
    with pytest.raises(DataError, match="holds 72 records behind the 8 that are edited, but num_seq_zsre"):
        prepare(compose_config([*argv, "num_seq_zsre=10"]))
    with pytest.raises(DataError, match="holds 0 records behind the 80 that are edited, fewer than one step"):
        prepare(compose_config([*tiny_words(f"dataset.train_path={file}", editor="malmen"), "num_seq=10"]))


@pytest.mark.parametrize("name", ["zsre", "counterfact", "wikibigedit", "qaedit"])
def test_the_experiments_on_real_records(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REAL_DIR", raising=False)
    assert compose_config([f"experiment=real_{name}"]).dataset.valid_path == f"data/raw/{name}.json.xz"
    monkeypatch.setenv("REAL_DIR", "/elsewhere")
    for editor in ("none", "in_context", "finetune", "margin", "ultraedit", "stableedit"):
        cfg = compose_config([f"experiment=real_{name}", f"editor={editor}"])
        assert cfg.dataset.train_path == cfg.dataset.valid_path == f"/elsewhere/{name}.json.xz"
        layers = [24] if editor == "finetune" else [24, 25, 26, 27]  # of one lowest layer, to share the states below
        assert cfg.model.edit_modules == [f"model.layers.{layer}.mlp.down_proj" for layer in layers]


@pytest.mark.parametrize("name", ["zsre", "counterfact", "wikibigedit", "qaedit"])
def test_real_records_are_enough_for_edits_and_warm_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = PROJECT.parent / "shared" / "real"
    if not (folder / f"{name}.json.xz").is_file():
        pytest.skip(f"{folder}/{name}.json.xz is not there")
    monkeypatch.setenv("REAL_DIR", str(folder))
    data, _ = prepare(compose_config([f"experiment=real_{name}"]))
    rows = [{edit.row for edit in records} for records in (data.edits, data.training or [])]
    assert [len(found) for found in rows] == ([400, 100] if name == "qaedit" else [1000, 100]) and not rows[0] & rows[1]


@pytest.mark.parametrize("which", ["in_context", "finetune over all"])
def test_a_run_that_continues_is_as_if_there_had_been_no_break(which: str, tmp_path: Path) -> None:
    *days, whole = continued.files(tmp_path / "data")
    argv = [word for word in words(which, "checkpoint.every=1") if not word.startswith(("num_seq=", "eval."))]
    run(tmp_path / "one", [*argv, f"dataset.valid_path={whole}", "num_seq=null"])
    run(tmp_path / "0", [*argv, f"dataset.valid_path={days[0]}", "num_seq=null"])
    continued.go_on(tmp_path / "1", tmp_path / "0", days[1], "num_seq=null")
    last = continued.go_on(tmp_path / "2", tmp_path / "1", days[2], "num_seq=null")
    continued.assert_same(continued.state(tmp_path / "one"), continued.state(tmp_path / "2"))
    earlier = [line["after"]["ES"]["tokens"] for line in lines_of(tmp_path / "one")[:24]]
    assert next(row for row in last["metrics"] if row["metric"] == "ES_earlier")["value"] == sum(earlier) / 24
