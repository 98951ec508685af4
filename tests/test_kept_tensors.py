"""What is kept across a step lies in memory as it will lie when a checkpoint is read.

Processors differ: the kernels of some round a product by the layout and the alignment of what they multiply. A run
that goes on must find every tensor as the run that was stopped had it; this is proved here on any processor.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from editor.ridge import Shift
from lifelong import run as lifelong_run
from lifelong import session
from tests.test_resume import EDITORS, run, words

ALIGNMENT = 64  # bytes, what torch's own CPU allocations have


def finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editor: str, *more: str, steps: str = "3"
) -> session.Session:
    """The session of a run that is over; learned editors stop with gathered gradients where they gather some."""
    made: list[session.Session] = []
    real = lifelong_run.assemble

    def keep(plan, opened, *rest):
        made.append(opened)
        return real(plan, opened, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(lifelong_run, "assemble", keep)
        run(tmp_path / "run", words(editor, "editor.lr=1e-2", f"num_seq={steps}", *more))
    return made[0]


def loose(tensors: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that are not contiguous."""
    return [name for name, value in tensors.items() if not value.is_contiguous()]


@pytest.mark.parametrize("more", [[], ["model.precision=bfloat16", "editor.float32_masters=true"]], ids=["", "masters"])
@pytest.mark.parametrize("editor", EDITORS)
def test_everything_kept_is_contiguous_and_is_what_the_next_step_reads(editor, more, tmp_path, monkeypatch):
    kept = finished(tmp_path, monkeypatch, editor, *more)
    tensors = kept.tensors()
    assert loose(tensors) == []
    for site in kept.editor.sites:
        shift = kept.editor.last_shifts[site.name]
        assert tensors[f"shift_right/{site.name}"] is shift.right_NV
        assert tensors.get(f"shift_left/{site.name}") is shift.left_NK
        assert tensors[f"weight/{site.name}"].data_ptr() == site.module.weight.data_ptr()
        assert tensors.get(f"master/{site.name}") is site.master
    for shape, statistics in kept.editor.statistics.items():
        assert tensors[f"statistics/{shape}/mean"] is statistics.mean_D
        assert tensors[f"statistics/{shape}/var"] is statistics.m2_D
        assert tensors.get(f"statistics/{shape}/cov_value") is statistics.scatter_VV


@pytest.mark.parametrize("editor", ["malmen", "mend", "rledit"])
def test_gathered_gradients_and_networks_are_contiguous_in_training(editor, tmp_path, monkeypatch):
    seen, real = [], session.Session.tensors

    def watched(self):
        found = real(self)
        seen.append({name: value.is_contiguous() for name, value in found.items()})
        return found

    monkeypatch.setattr(session.Session, "tensors", watched)
    run(tmp_path / "run", words(editor))
    names = {name.partition("/")[0] for state in seen for name in state}
    assert {"network", "optimizer", "statistics"} <= names and (editor != "rledit" or "gathered" in names)
    assert [name for state in seen for name, good in state.items() if not good] == []


@pytest.mark.parametrize("editor", EDITORS)
def test_what_is_read_from_a_file_lies_in_fresh_aligned_memory(editor, tmp_path, monkeypatch):
    kept = finished(tmp_path, monkeypatch, editor)
    save_file(kept.tensors(), tmp_path / "state.safetensors")
    read = load_file(tmp_path / "state.safetensors")
    kept.load_tensors(read)
    found = kept.tensors()
    assert loose(found) == []
    for name, value in found.items():
        assert torch.equal(value, read[name]) or name == "rng", name
        assert value.data_ptr() != read[name].data_ptr(), f"{name} still lies in the file's memory"
        # weights are copied into the model, which lies where every run loads it to
        assert name.startswith("weight/") or value.data_ptr() % ALIGNMENT == 0, name


def test_the_test_sees_a_shift_that_is_not_contiguous(tmp_path, monkeypatch):
    """A Cholesky solve gives column-major factors: without the copy the first test would fail."""
    monkeypatch.setattr(Shift, "contiguous", lambda self: self)
    with pytest.raises(ValueError, match="non contiguous"):
        finished(tmp_path, monkeypatch, "stableedit")
