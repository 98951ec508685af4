"""Processes of the cases: forked from this one, which has the imports, with an end to their time and memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

# the environment of every case; it is read when torch and the libraries around it are imported
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200"}
os.environ.pop("HYDRA_FULL_ERROR", None)

import torch

import exports.ask
import exports.delta  # noqa: F401
import glue_eval.evaluate  # noqa: F401
import lifelong.run  # noqa: F401
import main
import report.page  # noqa: F401
from tests.hostile.case import Case, Outcome, judge
from tests.hostile.clean import Clean

SECONDS = 60.0
MEMORY = 16 * 2**30  # bytes of address space
HARNESS_FAILED = 97
OUTPUT = "output.txt"


def program(argv: Sequence[str]) -> None:
    """`python ARGV`: main.py, or -m and a module."""
    name, words = (argv[1], argv[2:]) if argv[0] == "-m" else ("main", argv[1:])
    sys.argv = [argv[0] if argv[0] != "-m" else f"{name}/__main__.py", *words]
    if name == "main":
        main.main()
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=False)


def _apart(folder: Path) -> None:
    """A process group, an output file and a home of its own; nothing to read from."""
    os.setsid()
    with open(folder / OUTPUT, "ab") as output, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(folder)
    os.environ["HOME"] = str(folder / "home")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _child(case: Case, folder: Path, clean: Clean) -> None:
    _apart(folder)
    try:
        argv = [str(word) for word in case.make(folder, clean)]
        if case.before:
            case.before(folder)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(HARNESS_FAILED)
    program(argv)


def _plain(argv: Sequence[str], folder: Path, before: Callable[[], None] | None) -> None:
    _apart(folder)
    if before:
        before()
    program([str(word) for word in argv])


def execute(argv: Sequence[str], folder: Path, before: Callable[[], None] | None = None) -> int:
    """Run one command line in a folder to its end; its exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_plain, args=(argv, folder, before))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


class Running:
    """A case at work."""

    def __init__(self, case: Case, root: Path, clean: Clean, seconds: float) -> None:
        self.case, self.clean = case, clean
        self.folder = Path(tempfile.mkdtemp(prefix="case-", dir=root))
        self.process: Any = multiprocessing.get_context("fork").Process(target=_child, args=(case, self.folder, clean))
        self.started = time.monotonic()
        self.process.start()
        self.deadline = self.started + seconds

    def outcome(self) -> Outcome:
        """What came of it, once it has ended or has no time left."""
        seconds = time.monotonic() - self.started
        ended = self.process.exitcode
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # whatever it has started too
        self.process.join()
        path = self.folder / OUTPUT
        output = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if ended == HARNESS_FAILED:
            raise RuntimeError(f"the case {self.case.group} {self.case.name} cannot be made:\n{output}")
        same = self.case.wants.same
        kind, note = judge(self.case.wants, ended, output, lambda: same(self.folder, self.clean) if same else [])
        shutil.rmtree(self.folder, ignore_errors=True)
        return Outcome(self.case, kind, note, output.strip()[-1500:], seconds)


def run_cases(cases: Iterable[Case], root: Path, jobs: int = 1, seconds: float = SECONDS) -> Iterator[Outcome]:
    """Run the cases, so many at a time, each with so many seconds; their outcomes as they come."""
    torch.set_num_threads(1)
    clean = Clean(root / "clean", execute)
    waiting, running = deque(cases), list[Running]()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(Running(waiting.popleft(), root, clean, seconds))
        left = min(one.deadline for one in running) - time.monotonic()
        wait([one.process.sentinel for one in running], timeout=max(0.0, left))
        for one in list(running):
            if one.process.exitcode is not None or time.monotonic() > one.deadline:
                running.remove(one)
                yield one.outcome()
