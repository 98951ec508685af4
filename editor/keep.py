"""Folders of results that runs share: made once, and whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def kept(parent: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """PARENT/NAME, filled by `fill(folder)` where it is not there yet; whoever wants it meanwhile waits."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / name
    with FileLock(parent / f".{name}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as scratch:
                fresh = Path(scratch) / "new"
                fresh.mkdir()
                fill(fresh)
                fresh.rename(folder)
    return folder
