"""Where a step's keys and value gradients wait between capture and solve: memory, and files where it is short."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from editor.capture import Rows
from files import alive, host

FOLDER = re.compile(r"run-(?P<host>.+)-(?P<pid>\d+)-[a-z0-9_]{8}")
LOCK = ".lock"


class RowCache:
    """Rows of one step, put in micro-batch by micro-batch and read back site by site; in memory."""

    def __init__(self) -> None:
        self.batches: list[list[Rows]] = []

    def put(self, rows: list[Rows]) -> None:
        """Keep the next micro-batch's rows of all sites."""
        self.batches.append(rows)

    def get(self, batch: int, site: int) -> Rows:
        """The rows of one micro-batch and one site."""
        return self.batches[batch][site]

    def gather(self, site: int) -> Rows:
        """All rows of one site."""
        rows = [self.get(batch, site) for batch in range(len(self.batches))]
        return Rows(torch.cat([row.keys_NK for row in rows]), torch.cat([row.gradients_NV for row in rows]))

    def blocks(self, sites: Sequence[int]) -> Blocks:
        """The rows of some sites, micro-batch by micro-batch."""
        return Blocks(self, [(batch, site) for batch in range(len(self.batches)) for site in sites])

    def clear(self) -> None:
        """Forget the step."""
        self.batches.clear()


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks (keys_NK, gradients_NV), read from the cache each time they are asked for."""

    cache: RowCache
    places: list[tuple[int, int]]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch, site in self.places:
            rows = self.cache.get(batch, site)
            yield rows.keys_NK, rows.gradients_NV


IN_MEMORY = 2**30
"""Bytes of a step's rows that stay in memory where a folder is named; 350 rows of Mistral's three sites take 77 MB."""


class FileCache(RowCache):
    """In memory while a step's rows fit; what is more, a safetensors file per micro-batch in the run's own folder."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        super().__init__()
        self._folder, self._device, self._held = folder, device, 0

    def put(self, rows: list[Rows]) -> None:
        """Keep the next micro-batch's rows of all sites, or write them."""
        self._held += sum(row.nbytes for row in rows)
        if self._held <= IN_MEMORY:
            super().put(rows)
            return
        tensors: dict[str, Tensor] = {}
        for site, row in enumerate(rows):
            tensors[f"{site}.keys"] = row.keys_NK.contiguous()
            tensors[f"{site}.gradients"] = row.gradients_NV.contiguous()
        save_file(tensors, self._path(len(self.batches)))
        super().put([])

    def get(self, batch: int, site: int) -> Rows:
        """The rows of one micro-batch and one site; of a file nothing else is read."""
        if self.batches[batch]:
            return super().get(batch, site)
        with safe_open(self._path(batch), framework="pt", device=str(self._device)) as file:
            return Rows(file.get_tensor(f"{site}.keys"), file.get_tensor(f"{site}.gradients"))

    def clear(self) -> None:
        """Forget the step and remove its files."""
        super().clear()
        self._held = 0
        for path in self._folder.glob("batch_*"):
            path.unlink()

    def _path(self, batch: int) -> Path:
        return self._folder / f"batch_{batch:06d}.safetensors"


def remove_stale(parent: Path) -> None:
    """Remove the folders that killed runs of this host have left in `parent`.

    What has another name, is a link, belongs to another host, to a living process or to one that still holds
    its lock is left alone: process numbers alone would lie where containers of one host name share a folder.
    """
    for path in sorted(parent.iterdir()):
        name = FOLDER.fullmatch(path.name)
        if name is None or name["host"] != host() or path.is_symlink() or not path.is_dir():
            continue
        if not alive(int(name["pid"])):
            with suppress(OSError), FileLock(path / LOCK, blocking=False):  # its Timeout is an OSError
                shutil.rmtree(path)


@contextmanager
def row_cache(cache_dir: str | None, device: torch.device) -> Iterator[RowCache]:
    """A cache for one run; its files live in a private folder that is removed in the end, also on failure.

    Folders that killed runs left beside it are removed first.
    """
    if cache_dir is None:
        yield RowCache()
        return
    parent = Path(cache_dir).expanduser()
    parent.mkdir(parents=True, exist_ok=True)
    remove_stale(parent)
    private = tempfile.TemporaryDirectory(prefix=f"run-{host()}-{os.getpid()}-", dir=parent)
    with private as folder, FileLock(Path(folder) / LOCK):
        yield FileCache(Path(folder), device)
