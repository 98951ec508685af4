"""Programs of the project as processes of their own: the one way to start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from config.check import RunError
from data.source import PROJECT


def start_python(*words: str, threads: int | None = None, **options: Any) -> subprocess.Popen[str]:
    """`python WORDS`, in the project's folder unless `options` (Popen's) say another.

    `threads` is OMP_NUM_THREADS where that is not set.
    """
    env = ({"OMP_NUM_THREADS": str(threads)} if threads else {}) | os.environ
    given: dict[str, Any] = {"cwd": PROJECT, "env": env} | options
    return subprocess.Popen([sys.executable, *words], text=True, **given)


def run_python(*words: str, **options: Any) -> str:
    """What `python WORDS` printed; what it says on stderr goes to ours.

    Raises:
        RunError: it ended with another status than 0.
    """
    with start_python(*words, stdout=subprocess.PIPE, **options) as child:
        try:
            printed, _ = child.communicate()
        finally:
            child.kill()  # where we were stopped; else it has ended
    if child.returncode:
        raise RunError(f"python {' '.join(words[:2])} ended with status {child.returncode}; what it said is above")
    return printed


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Processes:
    """Programs that run beside each other, each with so many threads, and can be stopped together."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.running: set[subprocess.Popen[str]] = set()
        self.stopped = False

    def call(self, *words: str, terminal: Path) -> None:
        """Run `python WORDS` to its end, what it prints going to a file; a terminal's Ctrl-C does not reach it.

        Raises:
            RunError: no more may start.
        """
        with open(terminal, "a", encoding="utf-8") as file:
            if self.stopped:
                raise RunError("stopped")
            child = start_python(*words, threads=self.threads, stdout=file, stderr=file, start_new_session=True)
            self.running.add(child)
            if self.stopped:  # stop() may have looked before this one was there
                child.terminate()
            child.wait()
            self.running.discard(child)

    def stop(self) -> None:
        """Start no more; let those that run save their state and end."""
        self.stopped = True
        for child in list(self.running):
            child.terminate()
