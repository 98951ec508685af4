"""score=MODEL: the numbers of the run that made the model, whatever form it has; what cannot be scored is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import report
from config.check import ConfigError
from config.compose import compose_config
from config.scoring import unused, with_run_dir
from data.base import DataError
from editor import registry
from files import sha256_of_json
from lifelong import Session
from lifelong.evaluation import Evaluation
from lifelong.job import execute
from lifelong.status import Interrupted, read_status
from report.metrics import METRICS
from tests.tiny import MODELS, SITES, load_tiny, run_main, tiny_edits, tiny_words

BASE, GPT2 = str(MODELS / "tiny-llama"), str(MODELS / "tiny-gpt2")
KNOWN = [
    {"prompt": "The capital of France is", "prediction": "Paris"},
    {"prompt": "Two plus two is", "prediction": "4"},
]


WHOLE = "model.frozen_memory_gib=0"
"""A scoring knows no sites, below which states could be kept: the same numbers then, else up to rounding."""


def scoring_words(*more: str) -> list[str]:
    """The words of a scoring on the records of tiny_words: no editor, no site."""
    words = tiny_words()
    return [word for word in words if not word.startswith(("editor", "model=", "model.", "num_seq_"))] + list(more)


def scored(run_dir: Path, *words: str) -> dict[str, Any]:
    """One scoring in this process; its results.json."""
    words = tuple(scoring_words(*words))
    execute(compose_config(words), run_dir, words)
    return json.loads((run_dir / "results.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of a run that was saved whole and as a delta, with known facts and generated answers."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    (folder / "knowns.json").write_text(json.dumps(KNOWN))
    more = ("eval.generate=true", "eval.generate_sample=6", f"eval.knowns_path={folder}/knowns.json")
    (folder / "more").write_text("\n".join(more))
    for name, *how in (("run", "export=full"), ("other", "export=delta")):
        words = tiny_words(*more, *how, WHOLE, "model_cache=true", f"model_cache_dir={folder}/{name}-saved")
        execute(compose_config(words), folder / name, words)
    return folder


def more(made: Path) -> list[str]:
    """What the run measured beside ES, GS and LS."""
    return (made / "more").read_text().splitlines()


def results(run_dir: Path) -> dict[str, Any]:
    """A run's results.json."""
    return json.loads((run_dir / "results.json").read_text())


def values(found: dict[str, Any], side: str = "value") -> dict[str, Any]:
    """The final or earlier numbers by metric, with what they are means of."""
    return {row["metric"]: (row[side], row["n"]) for row in found["metrics"] if side in row}


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of edits.jsonl."""
    return [json.loads(line) for line in (run_dir / "edits.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("form", ["run-saved", "other-saved", "run"])
def test_a_model_has_the_numbers_that_its_run_reported(form, made, tmp_path):
    found, run = scored(tmp_path / "s", f"score={made / form}", "score_base=auto", *more(made)), results(made / "run")
    assert {"KS", "ES_exact", "LS_same", "LS_agreement", "LS_kl"} <= values(found).keys()
    assert values(found) == values(run) and values(found, "before") == values(run, "before")
    assert found["pre"] == run["pre"] and found["examples"] == run["examples"]
    assert lines(tmp_path / "s") == lines(made / "run")
    assert found["counts"] == {"edits": 24, "steps": 0, "skipped_rows": 0}
    kind = {"run-saved": "model", "other-saved": "delta", "run": "run"}[form]
    assert found["scored"] == {"model": str(made / form), "kind": kind, "dtype": "float32", "base": BASE}


def test_the_unedited_base_has_the_numbers_under_pre(made, tmp_path):
    found, run = scored(tmp_path / "s", f"score={BASE}", *more(made)), results(made / "run")
    before = {name: value for name, value in values(run, "before").items() if METRICS[name].unedited is None}
    assert values(found) == before and found["pre"] is None
    assert {line["before"] is None for line in lines(tmp_path / "s")} == {True}
    assert "LS_kl" not in values(found)


def test_a_model_against_itself_has_not_moved(tmp_path):
    found = values(scored(tmp_path / "s", f"score={BASE}", f"score_base={BASE}"))
    assert found["LS_agreement"] == (1.0, 24) and found["LS_kl"] == (0.0, 24)


def test_two_runs_can_be_compared(made, tmp_path):
    found = values(scored(tmp_path / "s", f"score={made / 'run'}", f"score_base={made / 'other-saved'}"))
    assert found["LS_kl"] == (0.0, 24)


def test_a_saved_session_scores_as_the_session(tmp_path):
    session = Session.load(BASE, editor="ultraedit", sites=SITES["tiny-llama"], device="cpu", lr=3e-3)
    edits = tiny_edits(count=24)
    session.edit(edits)
    session.save(tmp_path / "saved")
    found = scored(tmp_path / "s", f"score={tmp_path / 'saved'}", "score_base=auto")
    now, kind = session.score(edits), found["scored"]["kind"]
    assert [found[name] for name in ("ES", "GS", "LS")] == [now.ES, now.GS, now.LS] and kind == "session"
    assert found["pre"]["ES"] == scored(tmp_path / "base", f"score={BASE}")["ES"]


@pytest.mark.parametrize("form", ["saved", "run"])
def test_bfloat16_and_masters(form, tmp_path):
    how = ("model.precision=bfloat16", "editor.float32_masters=true", "eval.examples=0")
    words = tiny_words(*how, WHOLE, "model_cache=true", f"model_cache_dir={tmp_path / 'saved'}")
    execute(compose_config(words), tmp_path / "run", words)
    said = ("model.precision=bfloat16",) if form == "saved" else ()  # a run's directory knows its own
    found = scored(tmp_path / "s", f"score={tmp_path / form}", "score_base=auto", "eval.examples=0", *said)
    assert values(found) == values(results(tmp_path / "run")) and found["scored"]["dtype"] == "bfloat16"
    wide = scored(tmp_path / "w", f"score={tmp_path / form}", "eval.examples=0", "model.precision=float32")
    assert wide["scored"]["dtype"] == "float32" and wide["ES"] == pytest.approx(found["ES"], abs=0.05)


def test_numbers_before_editing_are_shared_with_the_run(tmp_path):
    words = [word for word in tiny_words() if not word.startswith("eval.cache_dir")] + [f"eval.cache_dir={tmp_path}/c"]
    execute(compose_config(words), tmp_path / "run", words)
    (kept,) = (tmp_path / "c").glob("before-*")
    scored(tmp_path / "s", f"score={tmp_path / 'run'}", "score_base=auto", f"eval.cache_dir={tmp_path}/c")
    assert [*(tmp_path / "c").glob("before-*")] == [kept]


def test_no_editor_is_loaded(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("an editor was loaded")

    for place in (registry, *(__import__(f"lifelong.{name}", fromlist=["x"]) for name in ("session", "setup", "run"))):
        for name in ("editor_class", "find_sites", "check_editor"):
            if hasattr(place, name):
                monkeypatch.setattr(place, name, refuse)
    assert scored(tmp_path / "s", f"score={BASE}")["config"]["editor"]["name"] == "none"


def test_downstream_tasks_of_both(tmp_path):
    words = ("downstream_eval_steps=1", "downstream.tasks=[sst]", "downstream.number_of_tests=4", "eval.examples=0")
    found = scored(tmp_path / "s", f"score={BASE}", f"score_base={BASE}", *words)
    before, after = found["downstream"]
    assert (before["edits"], after["edits"]) == (0, 24) and before["sst/f1_new"] == after["sst/f1_new"]
    names = {path.name for path in (tmp_path / "s" / "glue_eval").glob("*_glue.json")}
    assert names == {"base_glue.json", "case_24_glue.json"}


def test_report_and_wandb(tmp_path):
    found = scored(tmp_path / "s", f"score={BASE}", f"score_base={BASE}", "report=true", "wandb.mode=offline")
    page = (tmp_path / "s" / "report" / "report.html").read_text()
    assert "tiny-llama" in page and f"{found['ES']:.4f}" in page and [*(tmp_path / "s" / "wandb").glob("offline-run-*")]
    assert report.make([tmp_path / "s"]).is_file()


def test_in_the_real_program(made, tmp_path):
    done = run_main(*scoring_words(f"score={made / 'other-saved'}", "score_base=auto"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run_dir,) = (tmp_path / "outputs" / "zsre_other-saved_score").iterdir()
    assert read_status(run_dir)["state"] == "done" and f"written to {run_dir}" in done.stdout
    assert f"{results(made / 'other')['ES']:.4f}" in done.stdout and "no effect" not in done.stdout
    again = run_main(f"resume={run_dir}", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == f"written to {run_dir}", "shown again"
    changed = run_main(f"resume={run_dir}", "seed=7", cwd=tmp_path)
    assert changed.returncode == 1 and "with another seed" in changed.stderr and len(changed.stderr.splitlines()) == 1
    assert read_status(run_dir)["state"] == "done"
    edited = copied(made / "run", tmp_path / "edited")
    (edited / ".hydra").mkdir()
    (edited / ".hydra" / "overrides.yaml").write_text(json.dumps(tiny_words()))
    mixed = run_main(f"resume={edited}", f"score={BASE}", cwd=tmp_path)
    assert mixed.returncode == 1 and f"resume={edited}: holds no scoring" in mixed.stderr
    assert read_status(edited)["state"] == "done" and results(edited) == results(made / "run")


def test_a_scoring_that_was_stopped_starts_again(tmp_path, monkeypatch):
    def stop(_: Evaluation) -> None:
        raise Interrupted(15, tmp_path / "s")

    words = scoring_words(f"score={BASE}")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Evaluation, "measure_after", stop)
        execute(compose_config(words), tmp_path / "s", words)
    (tmp_path / "s" / ".hydra").mkdir()
    (tmp_path / "s" / ".hydra" / "overrides.yaml").write_text(json.dumps(words))
    assert scored(tmp_path / "s", f"score={BASE}", f"resume={tmp_path / 's'}")["ES"] > 0
    assert read_status(tmp_path / "s")["state"] == "done"


def test_words_of_an_editor_are_named_and_have_no_effect(tmp_path, caplog):
    words = [*scoring_words(f"score={BASE}"), "editor=mend", "editor.rank=4", "num_seq_zsre=1"]
    execute(compose_config(words), tmp_path / "s", words)
    assert f"no effect, since score={BASE} edits nothing: editor, editor.rank, num_seq_zsre" in caplog.text
    assert unused(["+editor.x=1", "eval.edits=3", "model.precision=float32"]) == ["editor.x"]


def test_the_run_directory_is_named_after_the_model():
    (_, word) = with_run_dir(["score=embedded:smollm2-135m"])
    assert word.startswith("hydra.run.dir=outputs/${dataset.name}_smollm2-135m_score/${now:")
    assert "_edited_score/" in with_run_dir(["score=some/where/edited/"])[1]
    for words in (["score=null"], ["seed=1"], ["score=a", "hydra.run.dir=x"], ["-m", "score=a,b"]):
        assert with_run_dir(words) == words


def copied(source: Path, target: Path) -> Path:
    """A folder's files in another folder."""
    target.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return target


def other_weights(folder: Path) -> Path:
    """tiny-llama with one edited weight changed."""
    copied(MODELS / "tiny-llama", folder)
    weights = load_file(folder / "model.safetensors")
    weights[f"{SITES['tiny-llama'][0]}.weight"] *= 2
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def other_tokens(folder: Path) -> Path:
    """tiny-llama with a token more."""
    model, tokenizer = load_tiny("tiny-llama"), AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens(["<more>"])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


REFUSED = {
    "a folder that is neither": (["score={tmp}/nothing"], "score={tmp}/nothing: the folder holds neither config.json"),
    "a name that is none": (["score=nowhere"], "score=nowhere: no such folder"),
    "an empty name": (["score="], "name a model"),
    "no dataset of that name": (["score={base}", "dataset.valid_path=nowhere.json"], "dataset.valid_path"),
    "a base alone": (["score_base={base}"], "score_base={base}: needs score=MODEL"),
    "no base known": (["score={base}", "score_base=auto"], "score_base=auto: nothing says which model"),
    "a base of other tokens": (["score={base}", "score_base={tmp}/tokens"], "{tmp}/tokens: has other tokens than"),
    "a base of another kind": (["score={made}/other-saved", f"score_base={GPT2}"], f"score_base={GPT2}: is a GPT2"),
    "a base of other weights": (
        ["score={made}/other-saved", "score_base={tmp}/weights"],
        "score_base={tmp}/weights: model.layers.1.mlp.down_proj.weight differs from the weight that was edited",
    ),
    "a delta whose base is gone": (["score={tmp}/delta"], "score=/nowhere/base: no such folder"),
    "a damaged delta": (["score={tmp}/cut"], "score={tmp}/cut/delta.safetensors"),
    "a run without checkpoints": (["score={tmp}/bare"], "score={tmp}/bare: the run keeps no intact checkpoint"),
    "saving": (["score={base}", "model_cache=true", "model_cache_dir=x"], "model_cache=true: score={base} neither"),
    "a folder to save to": (["score={base}", "model_cache_dir=x"], "model_cache_dir=x: score={base} neither"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line_before_a_model_loads(case, made, tmp_path, monkeypatch):
    for name in ("nothing", "bare"):
        (tmp_path / name).mkdir()
    (tmp_path / "bare" / "results.json").write_text("{}")
    other_weights(tmp_path / "weights")
    if "tokens" in case:
        other_tokens(tmp_path / "tokens")
    for name in ("delta", "cut"):
        copied(made / "other-saved", tmp_path / name)
    said = json.loads((tmp_path / "delta" / "delta.json").read_text())
    (tmp_path / "delta" / "delta.json").write_text(json.dumps(said | {"base": "/nowhere/base"}))
    (tmp_path / "cut" / "delta.safetensors").write_bytes(b"short")
    for place in ("exports.delta", "lifelong.any_model"):
        monkeypatch.setattr(f"{place}.load_model", lambda *_: pytest.fail("a model was loaded"))
    words, complaint = REFUSED[case]
    places = {"tmp": tmp_path, "made": made, "base": BASE}
    with pytest.raises((ConfigError, DataError)) as caught:
        scored(tmp_path / "s", *[word.format(**places) for word in words])
    assert complaint.format(**places) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "s" / "metrics.jsonl").exists()


def test_weights_that_are_not_the_runs_are_refused(made, tmp_path, monkeypatch):
    moved = other_weights(tmp_path / "weights")
    monkeypatch.setattr("lifelong.any_model.model_skeleton", lambda cfg: load_tiny("tiny-llama"))
    folder = tmp_path / "run" / "checkpoints" / "00000001"
    folder.parent.mkdir(parents=True)
    (newest, *_) = sorted((made / "run" / "checkpoints").iterdir(), reverse=True)
    copied(newest, folder)
    said = json.loads((folder / "state.json").read_text())
    del said["sha256"]
    said["config"]["model"]["name_or_path"] = str(moved)
    (folder / "state.json").write_text(json.dumps(said | {"sha256": sha256_of_json(said)}))
    with pytest.raises(ConfigError, match=f"score={tmp_path}/run: the weights of {moved} are not those"):
        scored(tmp_path / "s", f"score={tmp_path / 'run'}")
