"""Hidden states of token sequences, kept in memory or in a folder that runs share, and found by their tokens.

Shape suffixes: T positions, D hidden size.
"""

from __future__ import annotations

import hashlib
import os
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import torch
from filelock import FileLock
from torch import Tensor

from files import regular

ENTRY = struct.Struct("<16sQII")  # digest of the tokens, offset in bytes, tokens, checksum of the states


def digest(ids: Sequence[int]) -> bytes:
    """What a token sequence is found by."""
    return hashlib.blake2b(struct.pack(f"<{len(ids)}I", *ids), digest_size=16).digest()


class StateMemory:
    """Hidden states [T, D] of token sequences on the host. Nothing is added beyond `most` bytes, nothing let go.

    A run scores all edits, writes them all and scores them again in the same order: the oldest states are always
    those that are asked for next.
    """

    def __init__(self, most: int) -> None:
        self._known: dict[bytes, Tensor] = {}
        self._room = most

    def get(self, ids: Sequence[int]) -> Tensor | None:
        """The states [T, D] of a sequence; None where they are not there."""
        return self._known.get(digest(ids))

    def add(self, sequences: Sequence[Sequence[int]], states: Sequence[Tensor]) -> None:
        """Keep the states [T, D] of sequences that are not there yet."""
        for ids, state_TD in zip(sequences, states, strict=True):
            if (key := digest(ids)) not in self._known and state_TD.nbytes <= self._room:
                self._known[key] = state_TD
                self._room -= state_TD.nbytes


class StateFile:
    """Hidden states [T, D] of token sequences in `folder`: states.bin, and index.bin with an entry for each.

    Processes may read and append at the same time. The states are on the disk before their entry, so a
    process that is killed leaves at most states that nothing names. Every entry has a checksum: states that are
    cut or changed count as missing, and are appended anew. Nothing is added beyond `most` bytes.
    """

    def __init__(self, folder: Path, width: int, dtype: torch.dtype, most: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.width, self.dtype, self.most = folder, width, dtype, most
        self._size = width * dtype.itemsize  # bytes of a token
        self.states, self.index = folder / "states.bin", folder / "index.bin"
        regular(self.index).touch()
        self._states_fd = os.open(regular(self.states), os.O_RDONLY | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, self._states_fd)
        self._known: dict[bytes, tuple[int, int, int]] = {}
        self._read = 0
        self._refresh()

    def _refresh(self) -> None:
        """Take in what other processes have added; of two entries for a sequence the later one counts."""
        whole = self.index.stat().st_size // ENTRY.size * ENTRY.size
        if whole <= self._read:
            return
        with open(self.index, "rb") as file:
            file.seek(self._read)
            entries = file.read(whole - self._read)
        end = os.fstat(self._states_fd).st_size
        for key, offset, tokens, checksum in ENTRY.iter_unpack(entries):
            if offset + tokens * self._size <= end:
                self._known[key] = offset, tokens, checksum
        self._read = whole

    def get(self, ids: Sequence[int]) -> Tensor | None:
        """The states [T, D] of a sequence, on the CPU; None where they are not there or not as they were written."""
        key = digest(ids)
        if key not in self._known:
            self._refresh()
        if key not in self._known:
            return None
        offset, tokens, checksum = self._known[key]
        states_TD = torch.empty(tokens, self.width, dtype=self.dtype)
        # read, not mapped: a map that torch may share has to be writable, and memory is set aside for all of it
        data = states_TD.view(torch.uint8).numpy().data
        whole = tokens == len(ids) and os.preadv(self._states_fd, [data], offset) == data.nbytes
        if whole and crc32(data) == checksum:
            return states_TD
        del self._known[key]
        return None

    def add(self, sequences: Sequence[Sequence[int]], states: Sequence[Tensor]) -> None:
        """Append the states [T, D] of sequences that are not there yet."""
        with FileLock(self.folder / ".lock"):
            self._refresh()
            os.truncate(self.index, self._read)  # an entry that a killed process left unfinished
            end = self.states.stat().st_size
            entries: dict[bytes, bytes] = {}
            parts: list[bytes] = []
            for ids, state_TD in zip(sequences, states, strict=True):
                key = digest(ids)
                if key in self._known or key in entries or end + len(ids) * self._size > self.most:
                    continue
                parts.append(state_TD.detach().to("cpu", self.dtype).contiguous().view(torch.uint8).numpy().tobytes())
                entries[key] = ENTRY.pack(key, end, len(ids), crc32(parts[-1]))
                end += len(parts[-1])
            if entries:
                self._append(b"".join(parts), b"".join(entries.values()))
            self._refresh()

    def _append(self, states: bytes, entries: bytes) -> None:
        with open(self.states, "ab") as file:
            file.write(states)
            file.flush()
            os.fsync(file.fileno())  # before the entries exist: not even a power cut leaves one without its states
        with open(self.index, "ab") as file:
            file.write(entries)
            file.flush()
            os.fsync(file.fileno())  # a run that goes on after a power cut finds the states that it began with
