"""Programs as processes of their own: what they print, how they end, how many threads they get."""

from __future__ import annotations

import pytest

from config.check import RunError
from data.source import PROJECT
from lifelong.process import Processes, run_python


def test_what_a_program_prints_is_given_back(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os; print(os.getcwd(), os.environ.get('OMP_NUM_THREADS'))"
    assert run_python("-c", code) == f"{PROJECT} None\n"
    assert run_python("-c", code, threads=3) == f"{PROJECT} 3\n"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert run_python("-c", code, threads=3) == f"{PROJECT} 5\n", "who sets it himself is heard"


def test_a_program_that_fails_is_named_with_its_status():
    with pytest.raises(RunError, match=r"python -m nowhere\.to_be_found ended with status 1"):
        run_python("-m", "nowhere.to_be_found", "more")


def test_after_a_stop_nothing_starts(tmp_path):
    processes = Processes(threads=1)
    processes.stop()
    with pytest.raises(RunError, match="stopped"):
        processes.call("-c", "print(1)", terminal=tmp_path / "terminal.txt")
    assert (tmp_path / "terminal.txt").read_text() == ""
