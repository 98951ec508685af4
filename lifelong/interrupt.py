"""SIGINT and SIGTERM: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType


class Interrupted(BaseException):
    """The run was asked to stop and has saved what it had; `code` is the exit status (130 or 143)."""

    def __init__(self, signum: int, run_dir: Path) -> None:
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name}; go on with: python main.py resume={run_dir}")
        self.code = 128 + signum


class StopRequests:
    """Remembers the first signal; the second one acts as if nobody listened. Use as a context manager."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.signum: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def _remember(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        self._give_back()

    def _give_back(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())  # type: ignore[arg-type]

    def check(self) -> None:
        """Leave if a signal came.

        Raises:
            Interrupted: it did.
        """
        if self.signum is not None:
            raise Interrupted(self.signum, self.run_dir)
