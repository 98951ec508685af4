"""Progress: a bar on a terminal, a line a minute anywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS = 60.0


class Progress(tqdm):
    """tqdm, which with disable=None says nothing where the output is no terminal; this says how far it is."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.lines = options.get("disable") is None and not sys.stderr.isatty()
        self.said = time.monotonic()
        super().__init__(*args, **options | ({"disable": False} if self.lines else {}))

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Show the bar; as a line, if the last one is a minute old, where there is no terminal."""
        if not self.lines:
            return super().display(msg, pos)
        if time.monotonic() - self.said >= SECONDS:
            self.said = time.monotonic()
            print(str(self), file=sys.stderr, flush=True)
        return True

    def close(self) -> None:
        """End; lines leave nothing to be cleared."""
        self.disable = self.disable or self.lines
        super().close()
