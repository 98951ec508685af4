"""The short form of `python -m tests.torture`: real processes, killed with SIGKILL and resumed."""

from __future__ import annotations

import random
import subprocess
import sys

from tests.tiny import PROJECT
from tests.torture.power import remains


def test_killed_runs_end_as_if_nobody_had_touched_them():
    kinds = ["--kinds", "editors,directories,power", "--editors", "stableedit"]
    command = [sys.executable, "-m", "tests.torture", "--kills", "3", *kinds]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [line.split("  ")[0] for line in done.stdout.splitlines()[1:4]]
    assert names == ["editor stableedit", "reused, two at once", "power cut"]
    assert "\n3 kills, 0 differences" in done.stdout


def test_a_power_cut_takes_nothing_that_was_synced():
    chance = random.Random(0)
    left = {remains(b"12345678", b"1234", chance) for _ in range(200)}
    assert {b"12345678", b"1234", b"12345\0\0\0"} <= left and all(now and now.startswith(b"1234") for now in left)
    assert {None, b"", b"12", b"1234"} <= {remains(b"1234", None, chance) for _ in range(200)}
