"""Sessions from Python: edit, score, undo, save and open, on the tiny models."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from torch import Tensor

from config.check import ConfigError
from data import everyday
from data.base import DataError
from editor import margin
from editor.sites import EditSite
from lifelong import Fact, Session
from lifelong import session as session_module
from tests import notebooks
from tests.tiny import MODELS, PROJECT, SITES, load_tiny, tiny_edits, tiny_tokenizer

EDITORS = {
    "stableedit": {"lr": 3e-3, "alpha": 10},
    "ultraedit": {"lr": 3e-3},
    "recursive_ridge": {"lr": 3e-3},
    "alphaedit": {"lr": 3e-3, "threshold": 0.3},
    "memit": {"lr": 3e-3, "text_weight": 10},
    "malmen": {"lr": 3e-3, "rank": 8, "meta_lr": 1e-3},
    "mend": {"lr": 3e-3, "rank": 8, "meta_lr": 1e-3},
    "rledit": {"lr": 3e-3, "rank": 8, "meta_lr": 1e-3, "back_depth": 2},
}
EDITS = tiny_edits(count=24)


def opened(editor: str = "stableedit", precision: str = "float32", **more: Any) -> Session:
    """A session on tiny-llama, its networks trained where it has any."""
    folder = str(MODELS / "tiny-llama")
    session = Session.load(
        folder, editor=editor, sites=SITES["tiny-llama"], device="cpu", precision=precision, **(EDITORS[editor] | more)
    )
    if not session.trained:
        session.train(EDITS[:16], n_edits=8)
    return session


def copied(session: Session) -> dict[str, Tensor]:
    """Copies of all that the next step depends on."""
    return {name: value.clone() for name, value in session.tensors().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states are bitwise the same."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def opened_again(session: Session, states: Sequence[Any], folder: Path) -> Session:
    """The session saved and opened after two of its three steps of EDITS: it goes on and goes back to its `states`."""
    session.save(folder / "edited")
    again = Session.open(folder / "edited", device="cpu")
    assert same(copied(again), states[2])
    again.edit(EDITS[16:])
    assert same(copied(again), states[3])
    again.undo(0)
    assert same(copied(again), states[0])
    return again


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("editor", EDITORS)
def test_undo_and_open_are_bitwise(editor: str, precision: str, tmp_path: Path) -> None:
    session = opened(editor, precision)
    states, steps = [copied(session)], []
    for start in (0, 8, 16):
        steps.append(session.edit(EDITS[start : start + 8]))
        states.append(copied(session))
        assert not same(*states[-2:])
    session.undo(steps[2])
    assert same(copied(session), states[2])
    again = opened_again(session, states, tmp_path)
    assert len(again.history()) == 0
    again.edit(EDITS[:8])
    assert same(copied(again), states[1])


def test_float32_masters_are_undone_too() -> None:
    session = opened(precision="bfloat16", float32_masters=True)
    before = copied(session)
    session.edit(EDITS[:8])
    session.undo()
    assert any(name.startswith("master/") for name in before) and same(copied(session), before)


def test_a_failure_within_a_step_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    session, calls, add = opened(), [], EditSite.add
    session.edit(EDITS[:8])
    before = copied(session)

    def failing(site: EditSite, shift: Any) -> Tensor:
        calls.append(site.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return add(site, shift)

    monkeypatch.setattr(EditSite, "add", failing)
    with pytest.raises(KeyboardInterrupt):
        session.edit(EDITS[8:16])
    assert len(calls) == 2 and same(copied(session), before) and len(session.history()) == 1


def test_many_facts_are_cut_into_steps_and_the_last_may_be_smaller() -> None:
    session = opened()
    steps = session.edit(EDITS[:20], n_edits=8)
    assert [len(step.prompts) for step in steps] == [8, 8, 4]
    other = opened()
    for start in (0, 8, 16):
        other.edit(EDITS[start : min(start + 8, 20)])
    assert same(copied(session), copied(other))
    assert list(session.history()["facts"]) == [8, 8, 4]


def test_the_ledger_keeps_to_its_bound() -> None:
    session = opened(undo_gib=1e-9)
    session.edit(EDITS[:16], n_edits=4)
    assert list(session.history()["undo"]) == [False, False, False, True]
    with pytest.raises(ConfigError, match="step 1 lies beyond the ledger, which goes back to step 3"):
        session.undo(1)
    session.undo()
    with pytest.raises(ConfigError, match="step 2 lies beyond"):
        session.undo()


def test_a_step_is_undone_once() -> None:
    session = opened()
    with pytest.raises(ConfigError, match="no step was made"):
        session.undo()
    step = session.edit(EDITS[:8])
    session.undo(step)
    session.edit(EDITS[8:16])
    object.__setattr__(step, "time", "2020-01-01 00:00:00")
    with pytest.raises(ConfigError, match="step 0 is not in the history"):
        session.undo(step)


FACT = {"prompt": "Where is Tarn?", "answer": "Lund", "unrelated": "Where is Rome?", "unrelated_answer": "Italy"}


def test_facts_come_in_many_forms() -> None:
    session = opened()
    fact = Fact("Where is Tarn?", "Lund", unrelated=[("Where is Rome?", "Italy")])
    rows = [FACT | {"rephrase": None, "note": 3}]
    forms = [fact, FACT, rows, iter(rows), pd.DataFrame(rows), datasets.Dataset.from_list(rows)]
    scores = [session.score(form) for form in forms]
    assert scores[0].keys() == {"ES", "LS", "ES_all", "LS_all"}
    assert all(one == scores[0] and one.counts == scores[0].counts for one in scores)


def test_prompts_are_averaged_within_a_fact_first() -> None:
    session, [one, two] = opened(), ([edit.prompt for edit in EDITS[start : start + 3]] for start in (0, 3))
    answers = [EDITS[0].answer, EDITS[3].answer]
    single = [session.score(Fact(prompt, answers[0])).ES for prompt in one] + [
        session.score(Fact(two[0], answers[1])).ES
    ]
    found = session.score([Fact(one[0], answers[0], rephrase=one), Fact(two[0], answers[1], rephrase=[two[0]])])
    assert pytest.approx((sum(single[:3]) / 3 + single[3]) / 2) == found.GS
    assert found.counts["GS"] == 2


def test_a_run_scores_as_a_session_does() -> None:
    session = opened()
    scores = session.score(EDITS)
    assert scores.to_pandas().loc["ES", "n"] == 24 and scores["ES"] == scores.ES
    assert "ES" in repr(scores) and "<table" in scores._repr_html_()
    with pytest.raises(AttributeError, match="no QS was measured; there are ES"):
        _ = scores.QS


def test_a_loaded_model_is_taken_as_it_is() -> None:
    model, tokenizer = load_tiny("tiny-gpt2"), tiny_tokenizer("tiny-gpt2")
    session = Session.load(model, tokenizer=tokenizer, sites=SITES["tiny-gpt2"], editor="ultraedit", lr=3e-3)
    session.edit(EDITS[:8])
    assert session.model is model and isinstance(session.ask("Where"), str)
    with pytest.raises(ConfigError, match="a loaded model needs its tokenizer"):
        Session.load(model, sites=SITES["tiny-gpt2"])


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ([], "no fact was given"),
        ([FACT, {"prompt": "Where?"}], r"row 1 .*'answer' is missing"),
        ([FACT, FACT | {"answer": " "}], r"row 1 .*answer of the ES prompt is blank"),
        ([FACT, 7], r"row 1 .*7 is no fact"),
        ([FACT, FACT | {"unrelated_answer": None}], r"row 1 .*answer of the LS prompt is null"),
        ([FACT, FACT | {"prompt": 3}], r"row 1 .*the ES prompt is 3"),
        ([FACT, FACT | {"unrelated": [("one", "two", "three")]}], r"row 1 .*unrelated"),
        ([FACT, FACT | {"prompt": "word " * 5000}], r"row 1 .*the model's context is"),
    ],
)
def test_a_fact_that_cannot_be_used_is_named(facts: list[Any], words: str) -> None:
    session = opened()
    before = copied(session)
    with pytest.raises(DataError, match=words):
        session.edit(facts)
    assert same(copied(session), before)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"lrr": 1}, "no key editor.lrr; the nearest are editor.lr"),
        ({"lr": "fast"}, r"editor\.lr.*'fast'"),
        ({"editor": "stableedit", "lr": -1.0}, r"editor\.lr=-1\.0: must be a finite number above 0"),
        ({"editor": "nosuch"}, "nosuch"),
        ({"editor": "ultraedit", "preheat_mode": "start"}, "editor.preheat_mode=start: editor=ultraedit means none"),
        ({"sites": "model.layers.{1-3}.mlp.down"}, "the model has no module model.layers.1.mlp.down"),
        ({"sites": None}, "name the modules to edit"),
        ({"format": "poem"}, "dataset.prompt_format.*poem"),
        ({"device": "tpu"}, "device=tpu: must be auto, cpu or cuda:N"),
    ],
)
def test_a_bad_key_is_named(keys: dict[str, Any], words: str) -> None:
    folder = str(MODELS / "tiny-llama")
    with pytest.raises(ConfigError, match=words):
        Session.load(folder, **({"sites": SITES["tiny-llama"], "device": "cpu"} | keys))


def test_learned_editors_ask_for_training() -> None:
    session = Session.load(str(MODELS / "tiny-llama"), editor="malmen", sites=SITES["tiny-llama"], rank=8, device="cpu")
    with pytest.raises(ConfigError, match=r"editor=malmen learns before it edits: call session.train\(facts\)"):
        session.edit(EDITS[:8])
    with pytest.raises(ConfigError, match="3 facts are fewer than one step of n_edits=8"):
        session.train(EDITS[:3], n_edits=8)
    with pytest.raises(DataError, match="training needs a rephrased and an unrelated prompt"):
        session.train(FACT, n_edits=1)
    with pytest.raises(ConfigError, match="editor=stableedit learns nothing"):
        opened().train(EDITS, n_edits=8)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def test_a_folder_that_is_no_saved_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no session"):
        Session.open(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="holds no session"):
        Session.open(MODELS / "tiny-llama")
    session = opened()
    session.edit(EDITS[:8])
    folder = session.save(tmp_path / "edited")
    _cut(folder / "session" / "state.safetensors")
    with pytest.raises(ConfigError, match=r"session/state.safetensors is not the file that was saved"):
        Session.open(folder)
    folder = session.save(tmp_path / "edited")
    said = json.loads((folder / "session" / "session.json").read_text())
    (folder / "session" / "session.json").write_text(json.dumps(said | {"format": 99}))
    with pytest.raises(ConfigError, match="format 99"):
        Session.open(folder)
    folder = session.save(tmp_path / "edited")
    session.edit(EDITS[8:16])
    session.model.save_pretrained(folder)
    with pytest.raises(ConfigError, match="its weights are not those that were saved"):
        Session.open(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(ConfigError, match="other: exists and is no saved model"):
        session.save(tmp_path / "other")


def test_the_page_on_python_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (PROJECT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 2
    for size, small in {"TEXTS": 4, "LENGTH": 6, "SAID": 3}.items():  # of the text, which takes a minute
        monkeypatch.setattr(margin, size, small)
    monkeypatch.setattr(session_module, "questions", lambda: everyday.questions()[:8])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "Port Salis" in names["answer"]
    assert names["session"].ask("What is the capital of Valdoria?") == names["answer"]


def test_the_notebook_runs_and_shows_what_it_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = PROJECT / "docs" / "first_edits.ipynb"
    kept = [cell["outputs"] for cell in notebooks.cells(path)]
    monkeypatch.chdir(tmp_path)
    found = notebooks.run(path)
    answers = [["".join(output.get("data", {}).get("text/plain", [])) for output in cell] for cell in found]
    assert "Port Salis" not in answers[0][0] and "Port Salis" in answers[1][0]
    assert [len(cell) for cell in kept] == [len(cell) for cell in found], "python -m tests.notebooks writes them anew"
    assert kept[1][0]["data"] == found[1][0]["data"]
