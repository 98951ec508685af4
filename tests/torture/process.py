"""Runs as processes of their own, that die by a real SIGKILL.

Each calls main.main() with the words of a command line, in a process forked from this one, which has the
imports behind it (5 s of every start). Fork is why this process must never have used torch's threads.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data.source
import lifelong.run  # noqa: F401  so that no run has to import it
import main as program

data.source.LARGE = 0  # what is remembered of large files alone is remembered of the tiny ones too
COUNT = itertools.count()


class Child:
    """`python main.py ARGV` at work in a folder; `prepare` is called in its process before anything else."""

    def __init__(self, argv: list[str], folder: Path, prepare: Callable[[], None] | None = None) -> None:
        self.output = folder / f"output-{next(COUNT)}.txt"
        self.started = time.monotonic()
        self.process: Any = multiprocessing.get_context("fork").Process(target=self._work, args=(argv, prepare))
        self.process.start()

    def _work(self, argv: list[str], prepare: Callable[[], None] | None) -> None:
        with open(self.output, "ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.chdir(self.output.parent)
        if prepare is not None:
            prepare()
        sys.argv = ["main.py", *argv]
        program.main()

    def end(self, kill_at: float | None = None) -> int:
        """Wait for it, or kill it so many seconds after its start; its exit code (-9: killed)."""
        left = None if kill_at is None else max(0.0, self.started + kill_at - time.monotonic())
        self.process.join(left)
        if self.process.exitcode is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.join()
        return int(self.process.exitcode)

    def said(self) -> str:
        """The last line that it printed."""
        return self.output.read_text(errors="replace").strip().rpartition("\n")[2]

    def refused(self) -> bool:
        """Whether it ended as the program ends where it expects a failure: one line, no traceback."""
        return self.said().startswith("error: ") and "Traceback" not in self.output.read_text(errors="replace")


def next_words(argv: list[str], run_dir: Path) -> list[str]:
    """The command line that goes on with a run; the first one again if it had not got as far as a status."""
    started = (run_dir / "status.json").is_file()
    return [f"resume={run_dir}"] if started else [*argv, f"hydra.run.dir={run_dir}"]
