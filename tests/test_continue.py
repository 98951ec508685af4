"""A run goes on from another's state: bitwise what one run over all files would have been; steps are taken back."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from config.check import ConfigError, RunError
from config.compose import compose_config
from files import read_json
from lifelong import Session, origin, resume
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
    assert [line | {"before": 0} for line in lines(tmp_path / "2" / "edits.jsonl")] == [
        line | {"before": 0} for line in all_lines[24:]
    ]
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
    assert [line["edits"] for line in lines(tmp_path / "2" / "metrics.jsonl") if line["event"] == "evaluate"] == [24, 48]
