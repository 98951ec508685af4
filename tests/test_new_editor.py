"""A new editor is one Python file and one yaml, in the project or in a folder outside it (docs: CONTRIBUTING.md)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import PROJECT, run_main, tiny_words

CODE = '''
from dataclasses import dataclass

from config.schema import EditorConfig, above_zero
from editor.base import Editor
from editor.registry import register
from editor.ridge import Shift


@dataclass
class HebbConfig(EditorConfig):
    strength: float = above_zero(1.0)


@register("hebb", config=HebbConfig)
class Hebb(Editor):
    """S = -strength lr K^T G: the gradient step of every row."""

    def shifts(self, watch, *, warm_up):
        scale = -self.cfg.strength * self.cfg.lr
        rows = [self.cache.gather(site) for site in range(len(self.sites))]
        return [Shift(one.keys_NK, scale * one.gradients_NV) for one in rows]
'''
YAML = "defaults: [/schema/hebb@_here_, _self_]\nname: hebb\nstrength: 2.0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder outside the project that holds an editor."""
    (tmp_path / "mine" / "editor").mkdir(parents=True)
    (tmp_path / "mine" / "editor" / "hebb.py").write_text(CODE)
    (tmp_path / "mine" / "editor" / "hebb.yaml").write_text(YAML)
    return tmp_path / "mine"


def words(folder: Path, *more: str) -> list[str]:
    """A run of the outside editor."""
    return ["--config-dir", str(folder), *tiny_words(*more, editor="hebb")]


def test_an_editor_from_outside_writes_shifts(folder, tmp_path):
    done = run_main(*words(folder, "hydra.run.dir=run", "editor.lr=1"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["config"]["editor"]["strength"] == 2.0 and results["counts"]["edits"] == 24
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    steps = [line for line in lines if line["event"] == "step"]
    assert len(steps) == 3 and all(site["shift_norm"] > 0 for line in steps for site in line["sites"].values())
    assert results["ES"] != results["pre"]["ES"]
    again = run_main("resume=run", cwd=tmp_path)  # the folder is remembered
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_sweep_finds_it_in_its_jobs(folder, tmp_path):
    more = ["hydra.sweep.dir=sweep", "hydra/launcher=joblib", "num_seq=1"]
    done = run_main("-m", *words(folder, "editor.strength=1,2", *more), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 jobs done" in done.stdout


def test_the_same_two_files_serve_in_the_project(folder, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "outputs", "multirun", "reference"))
    shutil.copy(folder / "editor" / "hebb.py", copy / "editor")
    shutil.copy(folder / "editor" / "hebb.yaml", copy / "config" / "editor")
    command = [
        sys.executable,
        str(copy / "main.py"),
        *tiny_words(editor="hebb"),
        "editor.strength=3",
        "hydra.run.dir=run",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "run" / "results.json").read_text())["config"]["editor"]["strength"] == 3.0


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("editor.strenth=1", "there is no key editor.strenth; the nearest are editor.strength"),
        ("editor.alpha=1", "Key 'alpha' not in 'HebbConfig'"),
        ("editor.strength=0", "editor.strength=0.0: must be a finite number above 0"),
        ("editor.strength=much", "Value 'much' of type 'str' could not be converted to Float"),
        (
            "editor.name=nosuch",
            "editor.name=nosuch: there is no such editor; there are alphaedit, finetune, hebb, ",
        ),
        ("editor.name=stableedit", "choose it by editor=stableedit"),
    ],
)
def test_bad_keys_are_refused(folder, word, says, tmp_path):
    done = run_main(*words(folder, word, "hydra.run.dir=run"), cwd=tmp_path)
    assert done.returncode == 1 and says in done.stderr, done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_module_that_cannot_be_imported_is_named(folder, tmp_path):
    (folder / "editor" / "broken.py").write_text("import nothing_of_the_kind\n")
    done = run_main(*words(folder), cwd=tmp_path)
    assert done.returncode == 1
    assert f"error: --config-dir: an editor in {folder / 'editor'} cannot be imported" in done.stderr
    assert "Traceback" not in done.stderr
