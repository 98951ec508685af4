"""A run that was stopped goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from config.check import ConfigError, RunError, check_override_names
from config.compose import compose_config
from editor.learned import LearnedEditor
from files import sha256_of_json, write_json
from lifelong import Session, resume, scored_model, scorer
from lifelong import run as lifelong_run
from lifelong.other import words_of_other
from lifelong.status import Interrupted, StopRequests
from main import with_saved_overrides
from tests.tiny import tiny_words

LEARNED = ["editor.rank=8", "editor.n_blocks=1", "editor.meta_lr=1e-3", "editor.n_epochs=2"]
EDITORS = ["stableedit", "ultraedit", "malmen", "mend", "rledit", "recursive_ridge", "alphaedit", "memit"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the run gets to tidy up."""


def words(editor: str, *more: str) -> list[str]:
    """A small run that checkpoints every step."""
    learned = [*LEARNED, *(["editor.back_depth=2"] if editor == "rledit" else [])]
    return tiny_words(
        "checkpoint.every=1", *(learned if editor in ("malmen", "mend", "rledit") else []), *more, editor=editor
    )


def run(run_dir: Path, argv: list[str], *more: str) -> dict[str, Any]:
    """A whole run in its directory."""
    return lifelong_run.run(compose_config([*argv, *more]), run_dir)


def numbers(run_dir: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results and metric lines, without what a clock decides (downstream scores stand in the lines)."""
    results = json.loads((run_dir / "results.json").read_text())
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    free = ("seconds", "cpu_seconds", "peak_memory", "config", "versions", "downstream", "command")
    kept = {k: v for k, v in results.items() if k not in free}
    return kept, [{k: v for k, v in line.items() if k != "seconds" and not k.endswith("/time")} for line in lines]


def last_state(run_dir: Path) -> dict[str, torch.Tensor]:
    """The tensors of the newest checkpoint."""
    found = resume.newest(run_dir)
    assert found is not None
    return load_file(found[0] / "state.safetensors")


def assert_same_run(first: Path, second: Path) -> None:
    """Bitwise the same numbers and state."""
    assert numbers(first) == numbers(second)
    assert (first / "edits.jsonl").read_bytes() == (second / "edits.jsonl").read_bytes()
    one, two = last_state(first), last_state(second)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[str]:
    """One entry for every call of the method from now."""
    real, seen = getattr(owner, name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return seen


def kill_after(monkeypatch: pytest.MonkeyPatch, calls: int, owner: Any, name: str) -> None:
    """Make the method die in the middle of its `calls`-th call from now."""
    real, count = getattr(owner, name), iter(range(1, 10**6))

    def dying(*args: Any, **kwargs: Any) -> Any:
        if next(count) == calls:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)


def assert_resumed_is_uninterrupted(argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies in its first or third step and is resumed ends as the one that nobody killed."""
    run(tmp_path / "whole", argv)
    for calls in (1, 3):
        killed = tmp_path / f"killed{calls}"
        with monkeypatch.context() as patch:
            kill_after(patch, calls, lifelong_run.Loop, "step")
            with pytest.raises(Killed):
                run(killed, argv)
        run(tmp_path / "unused", argv, f"resume={killed}")
        assert_same_run(tmp_path / "whole", killed)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("editor", EDITORS)
def test_resumed_run_is_the_uninterrupted_one(editor, precision, tmp_path, monkeypatch):
    argv = words(editor, f"model.precision={precision}", "editor.lr=1e-2")
    assert_resumed_is_uninterrupted(argv, tmp_path, monkeypatch)


@pytest.mark.parametrize("editor", ["malmen", "mend", "rledit"])
@pytest.mark.parametrize("calls", [1, 3, 4, 5])
def test_killed_in_training(editor, calls, tmp_path, monkeypatch):
    argv = words(editor)
    run(tmp_path / "whole", argv)
    with monkeypatch.context() as patch:
        kill_after(patch, calls, LearnedEditor, "_train_step")
        with pytest.raises(Killed):
            run(tmp_path / "killed", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'killed'}")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(("name", "calls"), [("answers", 1), ("answers", 4), ("generate", 1), ("generate", 2)])
def test_killed_in_evaluation(name, calls, tmp_path, monkeypatch):
    argv = words("stableedit", "eval.every=1", "eval.sample=6", "eval.generate=true", "eval.generate_sample=3")
    run(tmp_path / "whole", argv)
    with monkeypatch.context() as patch:
        kill_after(patch, calls, scorer if name == "generate" else scored_model, name)
        with pytest.raises(Killed):
            run(tmp_path / "killed", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'killed'}")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("calls", [1, 2, 4])
@pytest.mark.parametrize("mode", ["start", "middle"])
def test_killed_while_measuring_over_time(mode, calls, tmp_path, monkeypatch):
    argv = words("stableedit", "eval.every=1", "eval.sample=6", f"editor.preheat_mode={mode}")
    run(tmp_path / "whole", argv)
    with monkeypatch.context() as patch:
        kill_after(patch, calls, lifelong_run.OverTime, "measure")
        with pytest.raises(Killed):
            run(tmp_path / "killed", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'killed'}")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("calls", [1, 2, 3])
@pytest.mark.parametrize("mode", ["start", "middle"])
def test_killed_in_downstream_evaluation(mode, calls, tmp_path, monkeypatch):
    more = ["downstream_eval_steps=1", "downstream.tasks=[sst]", "downstream.number_of_tests=4"]
    argv = words("stableedit", *more, f"editor.preheat_mode={mode}")
    run(tmp_path / "whole", argv)
    with monkeypatch.context() as patch:
        kill_after(patch, calls, lifelong_run.DownstreamEvaluator, "evaluate")
        with pytest.raises(Killed):
            run(tmp_path / "killed", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'killed'}")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def stopped_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A run directory with two checkpoints of a run that died in its fourth step."""
    argv = words("stableedit")
    with monkeypatch.context() as patch:
        kill_after(patch, 4, lifelong_run.Loop, "step")
        with pytest.raises(Killed):
            run(tmp_path / "run", argv)
    return tmp_path / "run", argv


def test_the_last_two_checkpoints_are_kept(tmp_path, monkeypatch):
    run_dir, _ = stopped_run(tmp_path, monkeypatch)
    assert len(list((run_dir / "checkpoints").iterdir())) == 2


def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, monkeypatch, caplog):
    run_dir, argv = stopped_run(tmp_path, monkeypatch)
    run(tmp_path / "whole", argv)
    newest = resume.newest(run_dir)[0]
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[-7] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    run(tmp_path / "unused", argv, f"resume={run_dir}")
    assert str(newest) in caplog.text and "is damaged" in caplog.text
    assert_same_run(tmp_path / "whole", run_dir)


def test_a_checkpoint_that_is_half_written_is_not_one(tmp_path, monkeypatch):
    run_dir, _ = stopped_run(tmp_path, monkeypatch)
    newest = resume.newest(run_dir)[0]
    (newest / "state.json").write_text('{"progress": ')
    assert resume.newest(run_dir)[0] < newest


def test_settings_that_change_the_numbers_are_refused(tmp_path, monkeypatch):
    run_dir, argv = stopped_run(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=r"editor\.lr was .*, is 0\.5.*num_seq was 3, is 2"):
        run(run_dir, argv, f"resume={run_dir}", "editor.lr=0.5", "num_seq=2")


def test_a_changed_data_file_is_refused(tmp_path, monkeypatch):
    argv = words("stableedit")
    data = tmp_path / "eval.json"
    data.write_text(Path(compose_config(argv).dataset.valid_path).read_text())
    argv = [*argv, f"dataset.valid_path={data}"]
    with monkeypatch.context() as patch:
        kill_after(patch, 4, lifelong_run.Loop, "step")
        with pytest.raises(Killed):
            run(tmp_path / "run", argv)
    data.write_text(data.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"eval\.json is not the file that the run started with"):
        run(tmp_path / "run", argv, f"resume={tmp_path / 'run'}")


def test_resume_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder; name the run directory"):
        run(tmp_path / "run", words("stableedit"), f"resume={tmp_path / 'nothing'}")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_leaves(signum, code, tmp_path, monkeypatch):
    argv = words("stableedit", "checkpoint.every=100")
    run(tmp_path / "whole", argv)
    real = lifelong_run.Loop.step

    def signalled(self, *args, **kwargs):
        signal.raise_signal(signum)
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(lifelong_run.Loop, "step", signalled)
        with pytest.raises(Interrupted) as caught:
            run(tmp_path / "stopped", argv)
    assert caught.value.code == code
    assert str(caught.value).endswith(f"resume={tmp_path / 'stopped'}")
    assert resume.newest(tmp_path / "stopped")[1]["state"]["loop"]["position"] == 1
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'stopped'}")
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "stopped")


def test_the_second_signal_acts_at_once(tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
    with StopRequests(tmp_path) as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        assert stop.signum == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    argv = words("stableedit")
    real, count = resume.save_file, iter(range(100))

    def full(*args, **kwargs):
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_file", full)
        with pytest.raises(RunError, match=r"hydra\.run\.dir=.*No space left"):
            run(tmp_path / "run", argv)
    assert resume.newest(tmp_path / "run")[1]["state"]["loop"]["position"] == 1
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    run(tmp_path / "whole", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'run'}")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_folder_without_saved_overrides_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no \.hydra/overrides\.yaml"):
        with_saved_overrides([f"resume={tmp_path}"])


def test_a_resumed_command_line_starts_with_the_saved_one(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- num_seq=3\n- editor.lr=0.5\n- resume=old\n")
    argv = [f"resume={tmp_path}", "wandb.mode=disabled", "editor.lr=0.25"]
    assert with_saved_overrides(argv) == [
        "num_seq=3", *argv, f"hydra.run.dir={tmp_path.resolve()}", "hydra.output_subdir=null"
    ]  # fmt: skip
    assert with_saved_overrides(["num_seq=2", "resume=null"]) == ["num_seq=2", "resume=null"]


@pytest.mark.parametrize(("record", "single"), [("{mode: RUN}", True), ("{mode: MULTIRUN, job: {num: 3}}", True),
                                                ("{job: {name: main}}", False)])  # fmt: skip
def test_what_goes_on_is_a_run_even_if_its_experiment_is_a_sweep(record, single, tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- experiment=real_zsre\n")
    (tmp_path / ".hydra" / "hydra.yaml").write_text(f"hydra: {record}\n")
    assert ("hydra.mode=RUN" in with_saved_overrides([f"resume={tmp_path}"])) is single


def test_a_run_of_an_editor_that_left_is_refused_in_words(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- experiment=quickstart\n- editor=stableedit_plus\n")
    with pytest.raises(ConfigError, match="editor=stableedit_plus: stableedit_plus left .*: use editor=margin"):
        check_override_names(with_saved_overrides([f"resume={tmp_path}"]))
    run(tmp_path / "run", tiny_words("checkpoint.every=1"))
    folder, found = resume.newest(tmp_path / "run")
    found["config"]["editor"] |= {"name": "stableedit_plus", "key_ridge": 0.99}
    del found["sha256"]
    write_json(folder / "state.json", found | {"sha256": sha256_of_json(found)})
    with pytest.raises(ConfigError, match="editor=stableedit_plus: stableedit_plus left .*: use editor=margin"):
        check_override_names(words_of_other([f"continue_from={tmp_path / 'run'}", "dataset.valid_path=more.json"]))
    with pytest.raises(ConfigError, match="there is no such editor"):
        Session.open(tmp_path / "run")


def test_names_in_a_default_checkpoint_are_as_before(tmp_path):
    run(tmp_path / "run", tiny_words("checkpoint.every=1", "num_seq=6", "num_seq_zsre=1"))
    found = {name for name in last_state(tmp_path / "run") if name.startswith("statistics")}
    assert found == {f"statistics/(112, 48)/{name}" for name in ("n", "mean", "var", "cov_value")}
