"""One run with its status file: as main.py's only run, or as a process of its own in a sweep."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, Self

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from config.errors import ConfigError, RunError
from data.base import DataError
from files import host, printable, read_json, remove_parts, sync, write_json

STATUS = "status.json"
ENDED = ("done", "failed", "interrupted")
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EEXIST,
              errno.ENOTDIR, errno.EISDIR)  # fmt: skip
RECORDS = ("metrics.jsonl", "results.json", "checkpoints")  # what a run leaves that another must not mix with
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The run was asked to stop and has saved what it had; `code` is the exit status (130 or 143)."""

    def __init__(self, signum: int, run_dir: Path) -> None:
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name}; go on with: python main.py resume={run_dir}")
        self.code = 128 + signum


class Listener:
    """SIGINT and SIGTERM go to one function until given back; only the main thread can listen."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handler, self._before = handler, dict[signal.Signals, Any]()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._handler) for signum in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Let those listen again who did before."""
        while self._before:
            signum, before = self._before.popitem()
            if signal.getsignal(signum) == self._handler:  # else somebody has taken over for good
                signal.signal(signum, before)


class StopRequests(Listener):
    """Remembers the first signal; the second one acts as if nobody listened."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(self._remember)
        self.run_dir = run_dir
        self.signum: int | None = None

    def _remember(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        self.give_back()

    def check(self) -> None:
        """Leave if a signal came.

        Raises:
            Interrupted: it did.
        """
        if self.signum is not None:
            raise Interrupted(self.signum, self.run_dir)


def now() -> str:
    """The local time with its offset, ISO 8601."""
    return datetime.now().astimezone().isoformat()


def new_status(overrides: Sequence[str], job: int | None) -> dict[str, Any]:
    """The status of a run that starts now, in this process."""
    status = {"state": "running", "overrides": list(overrides), "job": job, "pid": os.getpid()}
    return status | {"host": host(), "started": now(), "ended": None, "error": None, "traceback": None}


def read_status(run_dir: Path) -> dict[str, Any]:
    """A run's status.json; {} where there is none that can be read."""
    try:
        return dict(read_json(run_dir / STATUS))
    except (OSError, ValueError, TypeError):
        return {}


def write_status(run_dir: Path, status: dict[str, Any]) -> None:
    """Write status.json as a whole."""
    write_json(run_dir / STATUS, status)


def end_status(run_dir: Path, status: dict[str, Any], state: str, error: str | None = None, trace: str = "") -> None:
    """Write how a run ended; a traceback goes to the run's log file too (the terminal gets one line)."""
    write_status(run_dir, status | {"state": state, "ended": now(), "error": error, "traceback": trace or None})
    if error:
        text = printable("\n".join([error, trace]).strip())
        record = logging.makeLogRecord({"name": __name__, "levelno": logging.ERROR, "levelname": "ERROR", "msg": text})
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)


@contextmanager
def writing(key: str, folder: object, then: str = "make room, then go on by resume") -> Iterator[None]:
    """Say in one line that a folder cannot be written, which key names it, and what to do then; not for None.

    Raises:
        RunError: it cannot.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # of a full disk the latter says "I/O error"
        full = error.errno in UNWRITABLE if isinstance(error, OSError) else "I/O error" in str(error)
        if folder is None or not full:
            raise
        raise RunError(f"{key}={folder}: cannot be written ({error}); {then}") from error


@contextmanager
def held(run_dir: Path, *, resumes: bool) -> Iterator[None]:
    """A run directory that is this process's alone, which may ask for it twice; its death frees it.

    What Hydra wrote down of the run is on the disk then: without it no resume knows what the run was.

    Raises:
        ConfigError: it cannot be written, another run is at work in it, or it holds a run that is not resumed.
    """
    lock = FileLock(run_dir / ".lock", is_singleton=True)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except OSError as error:
        if isinstance(error, Timeout):
            raise ConfigError(f"{run_dir}: another run is at work there; name another hydra.run.dir, or wait") from None
        raise ConfigError(f"hydra.run.dir={run_dir}: cannot be written ({error}); name another folder") from error
    with lock:
        if not resumes and any((run_dir / name).exists() for name in RECORDS):
            raise ConfigError(
                f"hydra.run.dir={run_dir}: holds another run; go on with it by resume={run_dir}, or name another folder"
            )
        remove_parts(run_dir)
        sync(run_dir / ".hydra")
        yield


@contextmanager
def tracked(run_dir: Path, overrides: Sequence[str], job: int | None) -> Iterator[None]:
    """Keep status.json of what runs inside: running, then done, failed or interrupted.

    Raises:
        Interrupted: SIGINT or SIGTERM came while the run did not listen itself.
    """
    before, status = read_status(run_dir), new_status(overrides, job)
    write_status(run_dir, status)

    def leave(signum: int, _: FrameType | None) -> None:
        raise Interrupted(signum, run_dir)

    try:
        with Listener(leave):
            yield
    except BaseException as error:
        if before.get("state") in ENDED and isinstance(error, ConfigError | DataError):
            write_status(run_dir, before)  # a resume that was refused has changed nothing
            raise
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        line = str(error) if stopped else f"{type(error).__name__}: {error}"
        trace = "" if stopped else "".join(traceback.format_exception(error))
        end_status(run_dir, status, "interrupted" if stopped else "failed", line, trace)
        raise
    end_status(run_dir, status, "done")
