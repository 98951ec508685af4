"""What must stop a run, what it must survive, and what it leaves behind in either case."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Container
from pathlib import Path
from typing import Any

import pytest
import torch

from config.check import ConfigError, RunError
from data.base import DataError
from editor import ranks
from editor.cache import host, row_cache
from editor.capture import Captured, Rows, capture_together
from editor.ridge import Shift, solve_shifted
from editor.stableedit import StableEdit
from lifelong import resume, session
from lifelong import run as lifelong_run
from nets import InverseRoot, NumericsError, inverse_root
from tests.test_resume import assert_same_run, numbers, run
from tests.test_resume import words as resume_words
from tests.tiny import DATA, MODELS, PROJECT, SITES, run_main, tiny_words

SECOND = SITES["tiny-llama"][1]
BATCHES = 2  # micro-batches of a step: eight edits, five at a time


def whole(root: InverseRoot) -> torch.Tensor:
    """C^(-1/2), [V, V]."""
    return root.apply(torch.eye(len(root.vectors_VR), dtype=root.vectors_VR.dtype))


def words(editor: str, *more: str) -> list[str]:
    """A small run in which every micro-batch has a pass of its own."""
    return resume_words(editor, "editor.tokens_per_pass=1", *more)


def spoil(captured: Captured, kind: str) -> Captured:
    """The same capture with one number of the second site, or the loss, made impossible."""
    if kind == "loss":
        return dataclasses.replace(captured, loss=torch.tensor(float("inf")))
    rows = [Rows(row.keys_NK.clone(), row.gradients_NV.clone()) for row in captured.rows]
    target = rows[1].keys_NK if kind == "key" else rows[1].gradients_NV
    target[0, 0] = 1e25 if kind == "statistic" else float("nan")
    return dataclasses.replace(captured, rows=rows)


def spoil_capture(monkeypatch: pytest.MonkeyPatch, step: int, kind: str) -> None:
    """Let the first micro-batch of the step (of all steps, training included) come out wrong."""
    calls = iter(range(10**6))

    def bad(*args: Any) -> list[Captured]:
        captured = capture_together(*args)
        assert len(captured) == 1, "tokens_per_pass=1 in these tests' words"
        return [spoil(captured[0], kind)] if next(calls) == step * BATCHES else captured

    monkeypatch.setattr(ranks, "capture_together", bad)


def position(run_dir: Path) -> dict[str, Any]:
    """How far the newest checkpoint is."""
    found = resume.newest(run_dir)
    assert found is not None
    return found[1]["state"]["loop"] | {"retries": found[1]["state"]["session"]["retries"]}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("gradient", f"{SECOND}: keys or value gradients are not finite"),
        ("key", f"{SECOND}: keys or value gradients are not finite"),
        ("statistic", "the running statistics are not finite"),
        ("loss", "the loss is inf"),
    ],
)
def test_a_number_that_is_not_finite_stops_the_run(kind, says, tmp_path, monkeypatch):
    argv = words("stableedit", "checkpoint.every=100")
    with monkeypatch.context() as patch, pytest.raises(NumericsError) as caught:
        spoil_capture(patch, 3, kind)
        run(tmp_path / "run", argv)
    assert str(caught.value).startswith("step 3 (rows 8 to 15): ") and says in str(caught.value)
    assert position(tmp_path / "run")["position"] == 3 and not (tmp_path / "run" / "results.json").exists()
    run(tmp_path / "whole", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'run'}")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_shift_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    real, calls = StableEdit.shifts, iter(range(100))

    def bad(self, *args, **kwargs):
        found = real(self, *args, **kwargs)
        if next(calls) == 1:
            found[1] = Shift(None, found[1].matrix() * float("inf"))
        return found

    argv = words("stableedit")
    with monkeypatch.context() as patch, pytest.raises(NumericsError) as caught:
        patch.setattr(StableEdit, "shifts", bad)
        run(tmp_path / "run", argv)
    assert str(caught.value) == f"warm-up step 1 (rows 8 to 15): {SECOND}: the shift is not finite"
    run(tmp_path / "whole", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'run'}")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_weights_that_are_not_finite_are_found_in_the_first_step(tmp_path, monkeypatch):
    real = session.load_model

    def broken(*args):
        model = real(*args)
        model.get_submodule(SECOND).weight[3, 5] = float("nan")
        return model

    monkeypatch.setattr(session, "load_model", broken)
    with pytest.raises(NumericsError, match=r"step 0 \(rows 0 to 7\): .*not finite"):
        run(tmp_path / "run", words("ultraedit", "eval.before=false"))
    assert position(tmp_path / "run")["position"] == 0


@pytest.mark.parametrize("editor", ["malmen", "mend", "rledit"])
@pytest.mark.parametrize("step", [1, 4])
def test_training_stops_and_goes_on_too(editor, step, tmp_path, monkeypatch):
    argv = words(editor)
    with monkeypatch.context() as patch, pytest.raises(NumericsError) as caught:
        spoil_capture(patch, step, "gradient")
        run(tmp_path / "run", argv)
    where = f"training step {step % 3} of epoch {step // 3} (training edits 8 to 15)"
    assert str(caught.value).startswith(f"{where}: {SECOND}: ")
    run(tmp_path / "whole", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'run'}")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_changes_nothing_says_so(tmp_path):
    words_ = tiny_words("model.precision=bfloat16", "editor.lr=1e-15")
    with pytest.raises(RunError, match="no edited weight changed"):
        run(tmp_path / "run", words_)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["counts"]["edits"] == 24


def test_main_tells_the_shell_that_nothing_changed(tmp_path):
    done = run_main(
        *tiny_words("model.precision=bfloat16", "editor.lr=1e-15"), f"hydra.run.dir={tmp_path}/run", cwd=tmp_path
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: no edited weight changed")
    assert (tmp_path / "run" / "results.json").is_file()


def failing_eigh(failures: int, seen: list[torch.Tensor]):
    """torch.linalg.eigh that fails so many times first; what it was given is kept."""
    real = torch.linalg.eigh

    def eigh(matrix):
        seen.append(matrix)
        if len(seen) <= failures:
            raise torch.linalg.LinAlgError("did not converge")
        return real(matrix)

    return eigh


EIGH = ["eigendecomposition in float64", "eigendecomposition in jitter 1e-12", "eigendecomposition in jitter 1e-9"]
CHOLESKY = ["Cholesky with jitter 1e-12", "Cholesky with jitter 1e-10", "Cholesky with jitter 1e-08"]


@pytest.mark.parametrize("failures", [0, 1, 2, 3, 4])
def test_a_failing_decomposition_is_tried_again(failures, monkeypatch):
    rows_NV = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    covariance_VV, seen, retries = rows_NV.T @ rows_NV, [], Counter()
    expected = whole(inverse_root(covariance_VV, 1e-6))
    monkeypatch.setattr(torch.linalg, "eigh", failing_eigh(failures, seen))
    if failures == 4:
        with pytest.raises(NumericsError, match="in float64 and with jitter too"):
            whole(inverse_root(covariance_VV, 1e-6, retries=retries))
    else:
        assert torch.allclose(whole(inverse_root(covariance_VV, 1e-6, retries=retries)), expected, atol=1e-6)
    assert retries == Counter(EIGH[:failures])
    assert [matrix.dtype for matrix in seen] == [torch.float32, *[torch.float64] * 3][: failures + 1]
    added = [(matrix - covariance_VV.double()).diagonal().mean() / covariance_VV.diagonal().mean() for matrix in seen]
    assert added == pytest.approx([0, 0, 1e-12, 1e-9][: failures + 1], rel=0.01, abs=1e-15)


def failing_cholesky(failures: Container[int]):
    """torch.linalg.cholesky_ex that reports failure at these calls."""
    real, calls = torch.linalg.cholesky_ex, iter(range(10**6))

    def cholesky(matrix):
        factor, info = real(matrix)
        return factor, info + (next(calls) in failures)

    return cholesky


@pytest.mark.parametrize("failures", [0, 1, 2, 3, 4])
def test_a_failing_factorization_is_tried_again(failures, monkeypatch):
    gram_MM, right_MV, retries = torch.eye(4).double() * 3, torch.ones(4, 2).double(), Counter()
    monkeypatch.setattr(torch.linalg, "cholesky_ex", failing_cholesky(range(failures)))
    if failures == 4:
        with pytest.raises(NumericsError, match="not positive definite, with jitter 1e-8"):
            solve_shifted(gram_MM, 1.0, right_MV, retries)
    else:
        assert torch.allclose(solve_shifted(gram_MM, 1.0, right_MV, retries), right_MV / 4)
    assert retries == Counter(CHOLESKY[:failures])


def test_retries_are_in_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigh", failing_eigh(2, []))
    once_for_all_sites_then_one_by_one = {0, 3}
    monkeypatch.setattr(torch.linalg, "cholesky_ex", failing_cholesky(once_for_all_sites_then_one_by_one))
    results = run(tmp_path / "run", words("stableedit"))
    assert results["retries"] == dict.fromkeys([*EIGH[:2], CHOLESKY[0]], 1)
    assert position(tmp_path / "run")["retries"] == results["retries"]


@pytest.mark.parametrize(
    ("name", "broken"), [("eigh", failing_eigh(99, [])), ("cholesky_ex", failing_cholesky(range(99)))]
)
def test_a_solver_that_never_works_stops_the_run(name, broken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(NumericsError, match=r"step \d \(rows 0 to 7\): "):
        patch.setattr(torch.linalg, name, broken)
        run(tmp_path / "run", words("stableedit"))
    run(tmp_path / "unused", words("stableedit"), f"resume={tmp_path / 'run'}")
    assert (tmp_path / "run" / "results.json").is_file()


def test_a_run_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("years of work")
    with pytest.raises((OSError, ConfigError), match="file/run"):
        run(tmp_path / "file" / "run", words("stableedit"))
    assert (tmp_path / "file").read_text() == "years of work"


def test_a_checkpoint_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    with pytest.raises(RunError, match="checkpoints"):
        run(tmp_path / "run", words("stableedit"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_fills_up_leaves_the_last_state(tmp_path, monkeypatch):
    argv, calls, real = words("stableedit"), iter(range(100)), lifelong_run.Recorder.log

    def log(self, record):
        if next(calls) == 4:
            self._metrics.close()
            self._metrics = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115  closed by the recorder
        real(self, record)

    with monkeypatch.context() as patch, pytest.raises(RunError, match=r"hydra\.run\.dir=.*No space left"):
        patch.setattr(lifelong_run.Recorder, "log", log)
        run(tmp_path / "run", argv)
    assert position(tmp_path / "run")["position"] == 3
    run(tmp_path / "whole", argv)
    run(tmp_path / "unused", argv, f"resume={tmp_path / 'run'}")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def rows(kind: str) -> list[dict[str, Any]]:
    """All rows of a zsre reference file."""
    return json.loads((DATA / f"zsre_{kind}.json").read_text())


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    """Write a record file."""
    path.write_text(json.dumps(content))
    return path


LONG = "why " * 600


def with_bad_rows(kind: str) -> list[dict[str, Any]]:
    """A file's rows with three bad ones among them: null, too long for the model, no string."""
    found = rows(kind)
    found.insert(3, found[0] | {"ans": None})
    found.insert(10, found[0] | {"src": LONG})
    found.insert(11, found[0] | {"loc": 7})
    return found


def files(folder: Path, *, bad: bool) -> list[str]:
    """The words that name an evaluation and a training file in `folder`."""
    folder.mkdir()
    for kind in ("eval", "train"):
        write(folder / f"{kind}.json", with_bad_rows(kind) if bad else rows(kind))
    return [f"dataset.valid_path={folder}/eval.json", f"dataset.train_path={folder}/train.json"]


@pytest.mark.parametrize("editor", ["stableedit", "malmen"])
def test_skipped_rows_are_counted_listed_and_never_used(editor, tmp_path):
    good = run(tmp_path / "good", words(editor, *files(tmp_path / "clean", bad=False)))
    bad = run(tmp_path / "bad", words(editor, *files(tmp_path / "dirty", bad=True), "dataset.on_bad_row=skip"))
    assert good["skipped"] == {} and good["counts"]["skipped_rows"] == 0
    assert bad["counts"]["skipped_rows"] == 6
    assert bad["skipped"].keys() == {f"{tmp_path}/dirty/eval.json", f"{tmp_path}/dirty/train.json"}
    for found in bad["skipped"].values():
        assert list(found) == [3, 10, 11]
        assert "'ans' is null" in found[3] and "context is 512" in found[10] and "'loc' is 7" in found[11]
    (one, lines), (two, other_lines) = numbers(tmp_path / "good"), numbers(tmp_path / "bad")
    assert lines == other_lines
    assert all(one[name] == two[name] for name in ("ES", "GS", "LS", "pre"))


def test_bad_rows_are_an_error_by_default(tmp_path):
    with pytest.raises(DataError, match=r"eval\.json: row 3 \(counted from 0\): field 'ans' is null"):
        run(tmp_path / "run", words("stableedit", *files(tmp_path / "dirty", bad=True)))


def test_there_must_be_enough_good_rows(tmp_path):
    path = write(tmp_path / "few.json", with_bad_rows("eval")[:26])
    argv = words("stableedit", f"dataset.valid_path={path}", "dataset.on_bad_row=skip")
    with pytest.raises(DataError, match=r"few\.json: holds 23 records, but num_seq x n_edits = 3 x 8 = 24"):
        run(tmp_path / "run", argv)


@pytest.mark.parametrize("field", ["src", "rephrase", "loc"])
def test_a_prompt_longer_than_the_context_is_refused(field, tmp_path):
    found = rows("eval")
    found[5][field] = LONG
    path = write(tmp_path / "long.json", found)
    with pytest.raises(DataError) as caught:
        run(tmp_path / "run", words("stableedit", f"dataset.valid_path={path}"))
    message = str(caught.value)
    assert message.startswith(f"dataset.valid_path: {path}: row 5 (counted from 0): prompt 'why why")
    tokens = int(message.split(" has ")[1].split()[0])
    assert tokens > 512 and "the model's context is 512" in message


def model_that_drops_digits(folder: Path) -> Path:
    """tiny-llama with a tokenizer to which a text of digits alone is nothing."""
    shutil.copytree(MODELS / "tiny-llama", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": "^ ?[0-9]+$"}, "content": ""}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("field", ["ans", "loc_ans"])
def test_an_answer_without_tokens_is_refused_or_skipped(field, tmp_path):
    found = rows("eval")
    found[6][field] = "1984"
    path = write(tmp_path / "digits.json", found)
    argv = words("ultraedit", f"dataset.valid_path={path}")
    argv.append(f"model.name_or_path={model_that_drops_digits(tmp_path / 'model')}")
    with pytest.raises(DataError, match=r"digits\.json: row 6 \(counted from 0\): answer '1984' has no token"):
        run(tmp_path / "run", argv)
    results = run(tmp_path / "run", argv, "dataset.on_bad_row=skip")
    assert list(results["skipped"][str(path)]) == [6]


HOLDER = """
import os, signal, sys, time, torch
from editor.cache import row_cache
with row_cache(sys.argv[1], torch.device("cpu")):
    print("open", flush=True)
    os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "die" else time.sleep(600)
"""


def holder(folder: Path, fate: str) -> subprocess.Popen[str]:
    """A process with an open file cache in the folder, which then dies or sleeps."""
    command = [sys.executable, "-c", HOLDER, str(folder), fate]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


def open_cache(folder: Path) -> set[str]:
    """The names left in the folder after a cache was opened and closed there."""
    with row_cache(str(folder), torch.device("cpu")):
        pass
    return {path.name for path in folder.iterdir()}


def test_the_folder_of_a_dead_run_goes_that_of_a_live_one_stays(tmp_path):
    dead = holder(tmp_path, "die")
    dead.wait()
    assert [path.name.split("-")[-2] for path in tmp_path.iterdir()] == [str(dead.pid)]
    live = holder(tmp_path, "sleep")
    try:
        (left,) = open_cache(tmp_path)
        assert left.startswith(f"run-{host()}-{live.pid}-")
    finally:
        live.kill()
        live.wait()
    assert open_cache(tmp_path) == set()


def dead_pid() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_not_a_dead_runs_folder_is_left_alone(tmp_path):
    pid, cache = dead_pid(), tmp_path / "cache"
    names = {f"run-elsewhere.{host()}-{pid}-abcdefgh", f"run-{host()}-{pid}", f"run-{pid}-abcdefgh", "thesis"}
    names |= {f"run-{host()}-{os.getpid()}-abcdefgh", f"run-{host()}-{pid}-abcdefgh.old"}
    for name in names:
        (cache / name).mkdir(parents=True)
        (cache / name / "work.txt").write_text("years of work")
    target = tmp_path / "target"
    target.mkdir()
    link, plain = f"run-{host()}-{pid}-linklink", f"run-{host()}-{pid}-filefile"
    (cache / link).symlink_to(target)
    (cache / plain).write_text("a file")
    (cache / f"run-{host()}-{pid}-abcdefgh").mkdir()
    assert open_cache(cache) == names | {link, plain}
    assert target.is_dir() and all((cache / name / "work.txt").is_file() for name in names)


def test_a_folder_whose_lock_is_held_is_left_alone(tmp_path):
    """The process number may mean nothing here: another container may share host name and folder."""
    live = holder(tmp_path, "sleep")
    try:
        (path,) = tmp_path.iterdir()
        renamed = path.rename(tmp_path / f"run-{host()}-{dead_pid()}-abcdefgh")
        assert open_cache(tmp_path) == {renamed.name}
    finally:
        live.send_signal(signal.SIGKILL)
        live.wait()
    deadline = time.monotonic() + 10
    while open_cache(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not renamed.exists()
