"""The short form of `python -m tests.torture`: real processes, killed with SIGKILL and resumed."""

from __future__ import annotations

import subprocess
import sys

from tests.tiny import PROJECT


def test_killed_runs_end_as_if_nobody_had_touched_them():
    command = [sys.executable, "-m", "tests.torture", "--kills", "3", "--editors", "stableedit,rledit"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:3]]
    assert [row[0] for row in rows] == ["stableedit", "rledit"]
    assert [row[3:5] for row in rows] == [["3", "0"], ["3", "0"]], "kills and differences"
