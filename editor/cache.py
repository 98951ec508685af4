"""Where a step's keys and value gradients wait between capture and solve: memory, or files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from editor.capture import Rows


class RowCache(Protocol):
    """Rows of one step, put in micro-batch by micro-batch and read back site by site."""

    def put(self, batch: int, rows: list[Rows]) -> None:
        """Keep one micro-batch's rows of all sites."""

    def get(self, batch: int, site: int) -> Rows:
        """The rows of one micro-batch and one site."""

    def clear(self) -> None:
        """Forget the step."""


class MemoryCache:
    """Rows stay where they are."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Rows]] = {}

    def put(self, batch: int, rows: list[Rows]) -> None:
        """Keep one micro-batch's rows of all sites."""
        self._rows[batch] = rows

    def get(self, batch: int, site: int) -> Rows:
        """The rows of one micro-batch and one site."""
        return self._rows[batch][site]

    def clear(self) -> None:
        """Forget the step."""
        self._rows.clear()


class FileCache:
    """One safetensors file per micro-batch in a folder of the run's own."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device

    def put(self, batch: int, rows: list[Rows]) -> None:
        """Write one micro-batch's rows of all sites."""
        tensors: dict[str, Tensor] = {}
        for site, row in enumerate(rows):
            tensors[f"{site}.keys"] = row.keys_NK.contiguous()
            tensors[f"{site}.gradients"] = row.gradients_NV.contiguous()
        save_file(tensors, self._path(batch))

    def get(self, batch: int, site: int) -> Rows:
        """Read the rows of one micro-batch and one site, and nothing else of the file."""
        with safe_open(self._path(batch), framework="pt", device=str(self._device)) as file:
            return Rows(file.get_tensor(f"{site}.keys"), file.get_tensor(f"{site}.gradients"))

    def clear(self) -> None:
        """Remove the step's files."""
        for path in self._folder.iterdir():
            path.unlink()

    def _path(self, batch: int) -> Path:
        return self._folder / f"batch_{batch:06d}.safetensors"


@contextmanager
def row_cache(cache_dir: str | None, device: torch.device) -> Iterator[RowCache]:
    """A cache for one run; its files live in a private folder that is removed in the end, also on failure."""
    if cache_dir is None:
        yield MemoryCache()
        return
    parent = Path(cache_dir).expanduser()
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=parent) as folder:
        yield FileCache(Path(folder), device)
