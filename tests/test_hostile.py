"""The short form of `python -m tests.hostile`: some of its cases of every group, and a few drawn examples."""

from __future__ import annotations

import subprocess
import sys

import pytest

from config.check import known_keys
from tests.hostile import table
from tests.tiny import PROJECT


def test_bad_input_is_refused_with_words_or_changes_nothing():
    command = [sys.executable, "-m", "tests.hostile", "--some", "60", "--fuzz", "1", "--jobs", "1"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    total = next(line.split() for line in done.stdout.splitlines() if line.startswith("all "))
    assert int(total[1]) >= 60 and total[4:] == ["0", "0", "0", "0"], "tracebacks, hangs, wrong, without words"


NAMES = [f"{case.group} {case.name}" for case in table.all_cases()]


def test_there_are_cases_of_every_kind():
    assert len(NAMES) > 1200
    assert len(set(NAMES)) == len(NAMES), "each has a name of its own"


@pytest.mark.parametrize("key", known_keys())
def test_every_key_of_the_schema_has_cases(key):
    assert f"keys {key}=${{nosuch}}" in NAMES
