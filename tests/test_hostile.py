"""The short form of `python -m tests.hostile`: some of its cases of every group, and a few drawn examples."""

from __future__ import annotations

import subprocess
import sys

import pytest

from config.check import known_keys
from tests.hostile import table
from tests.tiny import PROJECT

FOUND = [
    "words unclosed bracket",
    "words unknown group",
    "words a surrogate in a path",
    "models weights with a NaN below",
    "models a tokenizer with a vocabulary beyond the model",
    "records train_path that is a link to itself",
    "resume a state of no settings",
    "models a tokenizer with a chat template of nothing",
    "models a generation config of odd values",
    "models named: a user that is none",
    "folders model_cache_dir in /proc",
    "deltas dtype auto",
    "deltas apply: a delta of 300 characters",
    "deltas delta.safetensors fifo",
    "reports results.json fifo",
    "reports results.json: metrics of nothing",
    "resume checkpoints/00000004/state.json fifo",
]


def hostile(*words: str) -> int:
    """How many cases one call of the command has run; each must come out right."""
    command = [sys.executable, "-m", "tests.hostile", "--jobs", "1", *words]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    total = next(line.split() for line in done.stdout.splitlines() if line.startswith("all "))
    assert total[4:] == ["0", "0", "0", "0"], "tracebacks, hangs, wrong, without words"
    return int(total[1])


def test_bad_input_is_refused_with_words_or_changes_nothing():
    assert hostile("--some", "45", "--fuzz", "1") >= 45


def test_what_this_table_found_stays_mended():
    assert hostile("--cases", *FOUND) == len(FOUND)


NAMES = [f"{case.group} {case.name}" for case in table.all_cases()]


def test_there_are_cases_of_every_kind():
    assert len(NAMES) > 1200
    assert len(set(NAMES)) == len(NAMES), "each has a name of its own"


@pytest.mark.parametrize("key", known_keys())
def test_every_key_of_the_schema_has_cases(key):
    assert f"keys {key}=${{nosuch}}" in NAMES
