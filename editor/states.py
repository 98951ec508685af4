"""A file of hidden states by token sequence, shared by every run on one model: appended to, never rewritten."""

from __future__ import annotations

import hashlib
import os
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

ENTRY = struct.Struct("<16sQI")  # digest of the tokens, offset in bytes, tokens


def digest(ids: Sequence[int]) -> bytes:
    """What a token sequence is found by."""
    return hashlib.blake2b(struct.pack(f"<{len(ids)}I", *ids), digest_size=16).digest()


class StateFile:
    """Hidden states [T, D] of token sequences in `folder`: states.bin, and index.bin with an entry for each.

    Processes may read and append at the same time. The states are on the disk before their entry, so a
    process that is killed leaves at most states that nothing names. Nothing is added beyond `most` bytes.
    """

    def __init__(self, folder: Path, width: int, dtype: torch.dtype, most: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.width, self.dtype, self.most = folder, width, dtype, most
        self._size = width * dtype.itemsize  # bytes of a token
        self.states, self.index = folder / "states.bin", folder / "index.bin"
        self.index.touch()
        self._states_fd = os.open(self.states, os.O_RDONLY | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, self._states_fd)
        self._known: dict[bytes, tuple[int, int]] = {}
        self._read = 0
        self.refresh()

    def refresh(self) -> None:
        """Take in what other processes have added.

        Raises:
            OSError: an entry names states that are not there, as in a copy made while a run added to it.
        """
        whole = self.index.stat().st_size // ENTRY.size * ENTRY.size
        if whole <= self._read:
            return
        with open(self.index, "rb") as file:
            file.seek(self._read)
            for key, offset, tokens in ENTRY.iter_unpack(file.read(whole - self._read)):
                if offset + tokens * self._size > os.fstat(self._states_fd).st_size:
                    raise self._cut_short()
                self._known.setdefault(key, (offset, tokens))
        self._read = whole

    def __contains__(self, ids: Sequence[int]) -> bool:
        return digest(ids) in self._known

    def __len__(self) -> int:
        return len(self._known)

    def get(self, ids: Sequence[int]) -> Tensor:
        """The states [T, D] of a sequence that is there, on the CPU.

        Raises:
            KeyError: it is not there.
            OSError: the file was cut since it was opened.
        """
        offset, tokens = self._known[digest(ids)]
        states_TD = torch.empty(tokens, self.width, dtype=self.dtype)
        # read, not mapped: a map that torch may share has to be writable, and memory is set aside for all of it
        read = os.preadv(self._states_fd, [states_TD.view(torch.uint8).numpy()], offset)
        if read != tokens * self._size:
            raise self._cut_short()
        return states_TD

    def _cut_short(self) -> OSError:
        return OSError(f"{self.states} is cut short: remove its folder when no run uses it")

    def add(self, sequences: Sequence[Sequence[int]], states: Sequence[Tensor]) -> None:
        """Append the states [T, D] of sequences that are not there yet."""
        with FileLock(self.folder / ".lock"):
            self.refresh()
            os.truncate(self.index, self._read)  # an entry that a killed process left unfinished
            end = self.states.stat().st_size
            entries: dict[bytes, bytes] = {}
            parts: list[bytes] = []
            for ids, state_TD in zip(sequences, states, strict=True):
                key = digest(ids)
                if key in self._known or key in entries or end + len(ids) * self._size > self.most:
                    continue
                entries[key] = ENTRY.pack(key, end, len(ids))
                parts.append(state_TD.detach().to("cpu", self.dtype).contiguous().view(torch.uint8).numpy().tobytes())
                end += len(parts[-1])
            if entries:
                self._append(b"".join(parts), b"".join(entries.values()))
            self.refresh()

    def _append(self, states: bytes, entries: bytes) -> None:
        with open(self.states, "ab") as file:
            file.write(states)
            file.flush()
            os.fsync(file.fileno())  # before the entries exist: not even a power cut leaves one without its states
        with open(self.index, "ab") as file:
            file.write(entries)
