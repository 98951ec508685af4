"""A run goes on from another's state: bitwise what one run over all files would have been; steps are taken back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from config.check import ConfigError, RunError
from config.compose import compose_config
from exports.delta import apply_delta
from files import read_json
from lifelong import Session, origin
from lifelong import run as lifelong_run
from lifelong.job import execute
from lifelong.other import words_of_other
from lifelong.resume import newest
from main import with_saved_overrides
from tests.tiny import DATA, tiny_words

LEARNED = ["editor.rank=8", "editor.n_blocks=1", "editor.meta_lr=1e-3"]
ROWS = json.loads((DATA / "zsre_eval.json").read_text())
SIZES = (16, 8, 24)  # records of three days, eight a step


def files(folder: Path) -> list[Path]:
    """The records of three days, those of all of them together, and training records for one step of training."""
    found, start = [], 0
    folder.mkdir(exist_ok=True)
    for day, size in enumerate(SIZES):
        found.append(folder / f"day{day}.json")
        found[-1].write_text(json.dumps(ROWS[start : start + size]))
        start += size
    (folder / "all.json").write_text(json.dumps(ROWS[:start]))
    (folder / "train.json").write_text(json.dumps(json.loads((DATA / "zsre_train.json").read_text())[:16]))
    return [*found, folder / "all.json"]


def first_words(data: Path, file: Path, editor: str, *more: str) -> list[str]:
    """The run of a first day."""
    steps = len(json.loads(file.read_text())) // 8
    learned = LEARNED if editor in ("malmen", "mend", "rledit") else []
    own = [f"dataset.valid_path={file}", f"dataset.train_path={data / 'train.json'}", f"num_seq={steps}"]
    return tiny_words("checkpoint.every=1", *learned, *own, *more, editor=editor)


def run(run_dir: Path, words: list[str]) -> dict[str, Any]:
    """A whole run in its directory."""
    return lifelong_run.run(compose_config(words), run_dir)


def go_on(run_dir: Path, other: Path, file: Path, *more: str) -> dict[str, Any]:
    """A run that continues from another, as the command line has it."""
    return run(run_dir, words_of_other([f"continue_from={other}", f"dataset.valid_path={file}", *more]))


def state(run_dir: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's newest checkpoint."""
    found = newest(run_dir)
    assert found is not None
    return load_file(found[0] / "state.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Bitwise the same tensors."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def scores(line: dict[str, Any]) -> list[Any]:
    """What a line of edits.jsonl says of the model at the end, and which edit it is about."""
    after = {name: (found["tokens"], found["prediction"]) for name, found in line["after"].items()}
    return [line["index"], line["step"], line["prompt"], line["target"], after]


@pytest.mark.parametrize("editor", ["stableedit", "malmen"])
def test_three_continued_runs_are_one(editor: str, tmp_path: Path) -> None:
    *days, whole = files(tmp_path / "data")
    one = run(tmp_path / "one", first_words(tmp_path / "data", whole, editor))
    run(tmp_path / "0", first_words(tmp_path / "data", days[0], editor))
    go_on(tmp_path / "1", tmp_path / "0", days[1])
    last = go_on(tmp_path / "2", tmp_path / "1", days[2])
    assert_same(state(tmp_path / "one"), state(tmp_path / "2"))

    assert last["counts"]["edits"] == 24 and last["counts"]["warm_up_steps"] == 0
    assert last["continued"] == {"from": str(tmp_path / "1"), "edits": 24, "steps": 3}
    all_lines = lines(tmp_path / "one" / "edits.jsonl")
    assert [scores(line) for line in lines(tmp_path / "2" / "edits.jsonl")] == [scores(line) for line in all_lines[24:]]
    earlier = [line["after"]["ES"]["tokens"] for line in all_lines[:24]]
    row = next(row for row in last["metrics"] if row["metric"] == "ES_earlier")
    assert row["value"] == sum(earlier) / 24 and row["n"] == 24 and "before" in row
    assert [(one["n"], one["edits"]) for one in last["earlier"]] == [(16, 16), (8, 8)]
    assert last["earlier"][0]["after"] == sum(earlier[:16]) / 16
    assert last["earlier"][1]["run"] == str(tmp_path / "1")
    assert one["spectrum"] == last["spectrum"] if editor == "stableedit" else "spectrum" not in one

    seen = [line for line in lines(tmp_path / "2" / "metrics.jsonl") if line["event"] == "step"]
    wanted = [line for line in lines(tmp_path / "one" / "metrics.jsonl") if line["event"] == "step"][-3:]
    for line, other in zip(seen, wanted, strict=True):
        assert {**line, "seconds": 0, "index": 0} == {**other, "seconds": 0, "index": 0}
    assert [line["edits"] for line in lines(tmp_path / "2" / "metrics.jsonl") if line["event"] == "evaluate"] == [
        24,
        48,
    ]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the records of three days and the finished run of the first: day/run."""
    torch.set_num_threads(1)  # as every test has it: undo makes steps again, with the threads that made them
    folder = tmp_path_factory.mktemp("day")
    first, *_ = files(folder)
    run(folder / "run", first_words(folder, first, "stableedit"))
    return folder


def test_a_resumed_continuation_is_the_uninterrupted_one(day: Path, tmp_path: Path, monkeypatch) -> None:
    go_on(tmp_path / "whole", day / "run", day / "day2.json")
    shutil.copytree(day / "run", tmp_path / "copy")
    words = words_of_other([f"continue_from={tmp_path / 'copy'}", f"dataset.valid_path={day / 'day2.json'}"])
    real, count = lifelong_run.Loop.step, iter(range(10))

    def dying(*args: Any, **kwargs: Any) -> Any:
        if next(count) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(lifelong_run.Loop, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", words)
    shutil.rmtree(tmp_path / "copy")  # a run that goes on has all it needs
    run(tmp_path / "unused", [*words, f"resume={tmp_path / 'cut'}"])
    assert_same(state(tmp_path / "whole"), state(tmp_path / "cut"))
    assert (tmp_path / "whole" / "edits.jsonl").read_bytes() == (tmp_path / "cut" / "edits.jsonl").read_bytes()
    one, other = (read_json(tmp_path / name / "results.json") for name in ("whole", "cut"))
    assert one["metrics"] == other["metrics"]
    with pytest.raises(ConfigError, match="continue_from was .*copy, is None"):
        run(tmp_path / "unused", [*words, "continue_from=null", f"resume={tmp_path / 'cut'}"])


def test_numbers_before_editing_are_not_those_of_the_fresh_model(day: Path, tmp_path: Path) -> None:
    cache = f"eval.cache_dir={tmp_path / 'cache'}"
    file = day / "day0.json"
    fresh = run(tmp_path / "fresh", first_words(day, file, "stableedit", cache))
    again = go_on(tmp_path / "again", day / "run", file, cache)
    assert again["pre"] == {name: fresh[name] for name in ("ES", "GS", "LS")} != fresh["pre"]
    assert len(list((tmp_path / "cache").glob("before-*"))) == 2
    assert newest(tmp_path / "again")[1]["model"] != newest(tmp_path / "fresh")[1]["model"]


def test_the_keys_of_the_other_run_hold_unless_said_anew(day: Path) -> None:
    cfg = compose_config(
        words_of_other([f"continue_from={day / 'run'}", f"dataset.valid_path={day / 'day2.json'}", "editor.lr=0.5"])
    )
    then = compose_config(first_words(day, day / "day0.json", "stableedit"))
    assert (cfg.editor.lr, cfg.num_seq, cfg.dataset.n_edits) == (0.5, None, 8)
    assert (cfg.editor.alpha, cfg.model, cfg.dataset.fields) == (10, then.model, then.dataset.fields)
    other = words_of_other([f"continue_from={day / 'run'}", "dataset=facts", "dataset.n_edits=4", "num_seq=2"])
    assert compose_config(other).dataset.fields.prompt == "src" and compose_config(other).dataset.n_edits == 4


def test_the_command_line_goes_on_and_takes_back(day: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    argv = [f"continue_from={day / 'run'}", f"dataset.valid_path={day / 'day1.json'}"]
    assert with_saved_overrides(argv) == words_of_other(argv) and words_of_other(["num_seq=2"]) == ["num_seq=2"]
    words = words_of_other([f"undo={day / 'run'}", "steps=2", f"model_cache_dir={tmp_path / 'back'}"])
    assert words[-3:] == ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]
    execute(compose_config(words[:-3]), tmp_path / "nothing", [])
    assert "as it was 2 steps earlier, after 2 of its steps" in capsys.readouterr().out
    assert not (tmp_path / "nothing").exists()


def snapshots(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """What a session's tensors are before each step from now, and at the end of the list after the last."""
    found: list[dict[str, torch.Tensor]] = []
    real = lifelong_run.Loop.step

    def told(loop: Any, *args: Any, **kwargs: Any) -> Any:
        found.append({name: value.clone() for name, value in loop.session.tensors().items()})
        return real(loop, *args, **kwargs)

    monkeypatch.setattr(lifelong_run.Loop, "step", told)
    return found


def take_back(run_dir: Path, steps: int, folder: Path) -> dict[str, torch.Tensor]:
    """The state that undo saves."""
    words = words_of_other([f"undo={run_dir}", f"steps={steps}", f"model_cache_dir={folder}"])
    execute(compose_config(words[:-3]), folder.parent / "unused", [])
    return load_file(folder / "session" / "state.safetensors")


@pytest.mark.parametrize("more", [[], ["model.precision=bfloat16", "editor.lr=1e-2"], ["checkpoint.every=100"]])
def test_steps_are_taken_back_bitwise(more: list[str], day: Path, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        before = snapshots(patch)
        run(tmp_path / "run", first_words(day, day / "day2.json", "stableedit", *more))
        go_on(tmp_path / "next", tmp_path / "run", day / "day1.json")
    assert len(before) == 6  # two of warm-up and three, then one
    for steps in (2, 5) if more else (1, 2, 3, 5):
        assert_same(take_back(tmp_path / "run", steps, tmp_path / f"back{steps}"), before[5 - steps])
    assert_same(take_back(tmp_path / "next", 1, tmp_path / "earlier"), before[5])
    session = Session.open(tmp_path / "back2", device="cpu")
    assert_same(dict(session.tensors()), before[3])
    assert list(session.history()["facts"]) == [0, 0, 8]
    again = go_on(tmp_path / "again", tmp_path / "back2", day / "day1.json")
    assert again["continued"] == {"from": str(tmp_path / "back2"), "edits": 8, "steps": 1}
    assert again["earlier"][0]["n"] == 8 and again["earlier"][0]["after"] is not None


def test_learned_steps_are_taken_back_as_far_as_states_are_kept(day: Path, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        before = snapshots(patch)
        run(tmp_path / "run", first_words(day, day / "day2.json", "malmen", "checkpoint.keep=3"))
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 3
    assert_same(take_back(tmp_path / "run", 2, tmp_path / "back"), before[1])
    with pytest.raises(ConfigError, match=r"steps=3: the state after step 0 lies before the first that was kept"):
        take_back(tmp_path / "run", 3, tmp_path / "far")
    assert not (tmp_path / "far").exists()
    session = Session.open(tmp_path / "run", device="cpu")
    session.undo(1)
    assert_same(dict(session.tensors()), before[1])


def test_what_a_continued_run_saves_is_its_model(day: Path, tmp_path: Path) -> None:
    for export in ("full", "delta"):
        save = [f"model_cache_dir={tmp_path / export}", "model_cache=true", f"export={export}"]
        go_on(tmp_path / f"run_{export}", day / "run", day / "day1.json", *save)
    base = compose_config(tiny_words()).model.name_or_path
    apply_delta(base, tmp_path / "delta", tmp_path / "whole")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("full", "whole")]
    assert_same(*weights)
    session = Session.open(tmp_path / "run_full", device="cpu")
    assert_same({name: session.model.state_dict()[name] for name in weights[0]}, weights[0])


def test_a_session_opens_a_run_and_goes_on(day: Path, tmp_path: Path) -> None:
    session = Session.open(day / "run", device="cpu")
    assert_same(dict(session.tensors()), state(day / "run"))
    assert list(session.history()["facts"]) == [0, 0, 8, 8]
    session.undo()
    session.save(tmp_path / "saved")
    go_on(tmp_path / "next", tmp_path / "saved", day / "day1.json")
    written = origin.read(tmp_path / "next").written
    assert [(one.edits, one.steps) for one in written] == [(8, 1), (8, 1)]
    assert [len(one.facts) for one in written] == [8, 8]


def test_facts_come_from_the_records_where_there_is_no_edits_jsonl(day: Path, tmp_path: Path, caplog) -> None:
    facts = origin.read(day / "run").written[0].facts
    shutil.copytree(day / "run", tmp_path / "run")
    (tmp_path / "run" / "edits.jsonl").unlink()
    assert origin.read(tmp_path / "run").written[0].facts == facts and len(facts) == 16
    shutil.copy(day / "day0.json", tmp_path / "kept.json")
    try:
        (day / "day0.json").write_text("[]")
        assert origin.read(tmp_path / "run").written[0].facts == [] and "cannot be asked again" in caplog.text
    finally:
        shutil.copy(tmp_path / "kept.json", day / "day0.json")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["editor=ultraedit"], "its statistics belong to editor.name=stableedit, not ultraedit"),
        (["editor.RunningMeanStd_mode=original"], "belong to editor.RunningMeanStd_mode=stable, not original"),
        (["model.edit_modules=[model.layers.{1-2}.mlp.down_proj]"], r"edit_modules=model.layers.\{1-3\}.mlp.down_proj"),
        (["model=llama-3-instruct"], "belong to model.name_or_path=.*tiny-llama, not "),
        (["model.precision=bfloat16"], "its weights are F32, not torch.bfloat16"),
        (["dataset.valid_path=nothing.json"], "dataset.valid_path: nothing.json: no such file"),
        (["experiment=quickstart"], "experiment=quickstart: continue_from takes the keys of"),
        (["undo=somewhere"], "continue_from=.* undo=somewhere: one at a time"),
    ],
)
def test_what_the_statistics_do_not_belong_to_is_refused(more: list[str], said: str, day: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=said) as caught:
        go_on(tmp_path / "next", day / "run", day / "day1.json", *more)
    assert "\n" not in str(caught.value) and not (tmp_path / "next" / "start").exists()


def test_a_folder_that_cannot_be_gone_on_with_is_refused(day: Path, tmp_path: Path) -> None:
    def refused(folder: Path, said: str, *more: str) -> None:
        with pytest.raises(ConfigError, match=said):
            go_on(tmp_path / "next", folder, day / "day1.json", *more)
        assert not (tmp_path / "next" / "start").exists()

    refused(tmp_path / "nowhere", "neither a run directory with checkpoints nor a folder of Session.save")
    refused(DATA, "neither a run directory")
    with pytest.raises(ConfigError, match=r"name today's facts by dataset\.valid_path=FILE"):
        words_of_other([f"continue_from={day / 'run'}"])
    half = tmp_path / "half"
    shutil.copytree(day / "run", half)
    for path in half.glob("checkpoints/*/state.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    refused(half, "none of its checkpoints is intact")
    saved = Session.open(day / "run", device="cpu").save(tmp_path / "saved")
    state_of = saved / "session" / "state.safetensors"
    state_of.write_bytes(state_of.read_bytes()[:-1])
    refused(saved, "is not the file that was saved")
    (saved / "session" / "session.json").unlink()
    refused(saved, "holds no session")


def test_another_base_or_tokenizer_is_refused(day: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(compose_config(tiny_words()).model.name_or_path, base)
    words = first_words(day, day / "day0.json", "stableedit", f"model.name_or_path={base}")
    run(tmp_path / "run", words)
    settings = read_json(base / "tokenizer_config.json")
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "{{ messages }}"}))
    with pytest.raises(ConfigError, match="its statistics belong to another tokenizer than"):
        go_on(tmp_path / "next", tmp_path / "run", day / "day1.json")
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    model = Session.open(tmp_path / "run", device="cpu").model
    model.save_pretrained(base)
    with pytest.raises(ConfigError, match="the weights of .*base are not those it started with"):
        go_on(tmp_path / "next", tmp_path / "run", day / "day1.json")


def test_an_undo_that_cannot_be_exact_is_refused(day: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="steps=5: .* made 4 steps, warm-up among them"):
        take_back(day / "run", 5, tmp_path / "back")
    saved = Session.open(day / "run", device="cpu").save(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"is no run directory with checkpoints; of a saved session: session.undo"):
        take_back(saved, 1, tmp_path / "back")
    with pytest.raises(ConfigError, match="leave out -m"):
        words_of_other(["-m", f"undo={day / 'run'}"])
    with pytest.raises(ConfigError, match="needs model_cache_dir=DIR"):
        execute(compose_config(words_of_other([f"undo={day / 'run'}"])[:-3]), tmp_path / "unused", [])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(ConfigError, match="exists and is no saved model"):
        take_back(day / "run", 1, tmp_path / "full")
    shutil.copytree(day / "run", tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"loss": ', '"loss": 1'))
    with pytest.raises(RunError, match="step 0 did not come out as .*metrics.jsonl has it"):
        take_back(tmp_path / "run", 3, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    go_on(tmp_path / "next", day / "run", day / "day1.json")
    with pytest.raises(ConfigError, match="made 1 steps, .*is undone by undo=.*run"):
        take_back(tmp_path / "next", 2, tmp_path / "back")
