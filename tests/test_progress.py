"""Progress where the output is no terminal: a line a minute, and nothing else."""

from __future__ import annotations

import sys

import pytest

from config import progress
from config.progress import Progress


def counted(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Five rounds of so many seconds each, by a clock of our own."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Progress(total=5, desc="edit", unit="step", disable=None, leave=False, mininterval=0) as bar:
        for _ in range(5):
            clock[0] += seconds
            bar.update()


@pytest.mark.parametrize(("seconds", "lines"), [(61.0, 5), (31.0, 2), (10.0, 0)])
def test_a_line_a_minute(monkeypatch, capfd, seconds, lines):
    counted(monkeypatch, seconds)
    said = capfd.readouterr().err
    assert said.count("\n") == lines and "\r" not in said
    assert said.count("edit") == lines and (lines == 0 or "/5" in said)


def test_a_terminal_has_a_bar(monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(range(3), desc="edit", disable=None, leave=False, mininterval=0) as bar:
        list(bar)
    said = capfd.readouterr().err
    assert "\r" in said and "3/3" in said


def test_a_bar_that_is_switched_off_says_nothing(monkeypatch, capfd):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    list(Progress(range(3), desc="edit", disable=True))
    assert capfd.readouterr().err == ""
