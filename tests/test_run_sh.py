"""run.sh: what it says without installing anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tiny import PROJECT

EXPERIMENTS = sorted(path.stem for path in (PROJECT / "config" / "experiment").glob("*.yaml"))


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of what run.sh reads, in a path with a space: a .venv made by mistake is seen and harms nothing."""
    root = tmp_path / "a project"
    shutil.copytree(PROJECT / "config", root / "config")
    shutil.copy(PROJECT / "run.sh", root)
    return root


def sh(*words: object, cwd: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    env = {"PATH": path}
    return subprocess.run(
        ["sh", *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def made_here(tree: Path) -> set[str]:
    return {path.name for path in tree.iterdir()} - {"config", "run.sh"}


def test_syntax(tree):
    done = sh("-n", "run.sh", cwd=tree)
    assert (done.returncode, done.stderr) == (0, "")


def test_list_names_every_experiment_with_a_line(tree):
    done = sh("run.sh", "list", cwd=tree)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == EXPERIMENTS
    for name, description in lines:
        assert len(description) > 10 and "@package" not in description and "#" not in description, name
    assert made_here(tree) == set()


def test_an_unknown_experiment_is_refused_with_the_names(tree):
    done = sh("run.sh", "nope", "num_seq=1", cwd=tree)
    assert done.returncode != 0 and done.stdout == ""
    assert "no experiment 'nope'" in done.stderr
    for name in EXPERIMENTS:
        assert name in done.stderr
    assert made_here(tree) == set(), "nothing is installed for a name that does not exist"


@pytest.mark.parametrize("words", [["list"], ["help"], ["--help"], ["nope"]])
def test_works_from_another_directory(tree, tmp_path, words):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    here, there = sh("run.sh", *words, cwd=tree), sh(tree / "run.sh", *words, cwd=elsewhere)
    assert (here.returncode, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr)
    assert list(elsewhere.iterdir()) == [] and made_here(tree) == set()


@pytest.mark.parametrize("word", ["help", "-h", "--help"])
def test_help_lists_the_forms(tree, word):
    done = sh("run.sh", word, cwd=tree)
    assert done.returncode == 0
    for form in ("sh run.sh ", "sh run.sh NAME", "sh run.sh list", "sh run.sh test"):
        assert form in done.stdout


def test_without_python_it_says_so(tree, tmp_path):
    """A PATH with the shell's tools and no Python."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "dirname", "basename", "cat", "cksum", "sed", "head", "mkdir", "rm", "sleep"):
        (tools / tool).symlink_to(shutil.which(tool))
    (tree / "requirements.txt").write_text("")
    done = sh("run.sh", "quickstart", cwd=tree, path=str(tools))
    assert done.returncode != 0 and "needs Python 3.11 or newer" in done.stderr
    assert made_here(tree) == {"requirements.txt"}, "neither half a .venv nor its lock stays"


def installed_and_run(tree: Path, *words: str) -> tuple[list[str], str]:
    """The requirement files that run.sh installs for a command line, and the command that it ends with."""
    python = tree / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\necho "$*" >>"{tree}/calls"\n')
    python.chmod(0o755)
    (tree / "calls").write_text("")
    done = sh("run.sh", *words, cwd=tree)
    assert done.returncode == 0, done.stderr
    *installs, last = (tree / "calls").read_text().splitlines()
    return [line.rpartition("-r requirements")[2] for line in installs], last


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["quickstart"], []),
        (["quickstart", "-m", "hydra/launcher=joblib"], ["-joblib.txt"]),
        (["quickstart", "-m", "hydra/launcher=submitit_local"], ["-submitit.txt"]),
        (["quickstart", "-m", "hydra/launcher=slurm", "hydra/sweeper=optuna"], ["-submitit.txt", "-optuna.txt"]),
        (["sweep_alpha_preheat"], ["-joblib.txt"]),
    ],
)
def test_launchers_are_installed_when_asked_for(tree, words, parts):
    for path in PROJECT.glob("requirements*.txt"):
        shutil.copy(path, tree)
    installed, last = installed_and_run(tree, *words)
    assert installed == [".txt", "-embedded.txt", *parts]
    assert last.split("main.py ")[1] == " ".join([f"experiment={words[0]}", *words[1:]])
    assert installed_and_run(tree, *words)[0] == [], "once"
    for part in parts:
        assert (PROJECT / f"requirements{part}").is_file()


def test_it_is_the_ci_command():
    assert "sh run.sh test" in (PROJECT / ".ci" / "run").read_text()
