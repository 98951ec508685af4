"""Layers below the lowest edited one never change: what they make of a prompt is computed once, for all runs.

The numbers are those of a run without it up to the rounding of a batch: states keep that of the batch in
which their sequence first came.

Shape suffixes: B sequences, T positions, D hidden size.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from filelock import FileLock
from torch import Tensor, nn
from transformers import PreTrainedModel

from config.check import ConfigError
from config.schema import ModelConfig
from data.batches import Batch, to_device
from editor.capture import Inputs, tokens_of
from files import regular
from model import fingerprint

FORMAT = 2  # of the states' folder; raise it when what is kept changes
LAYER = re.compile(r"layers\.(\d+)\.")
PROBE = 12  # tokens of the sequence on which the short way is compared with the whole model
ENTRY = struct.Struct("<16sQII")  # digest of the tokens, offset in bytes, tokens, checksum of the states


class FrozenLayers:
    """The hidden states that enter layer `first` of a decoder, kept in a file by token sequence."""

    def __init__(self, model: PreTrainedModel, first: int, parent: Path, most: int) -> None:
        decoder: Any = model.base_model  # of whatever class: `check` tells whether it has what is used here
        self.decoder = decoder
        self.first = first
        layers = self.decoder.layers
        self.below, self.above = layers[:first], layers[first:]
        embeddings = model.get_input_embeddings().weight
        assert isinstance(embeddings, Tensor)
        self.file = StateFile(parent / self._key(), embeddings.shape[1], embeddings.dtype, most)

    def _key(self) -> str:
        """What the states depend on: the weights below, the way they are computed."""
        decoder = self.decoder
        found = ((LAYER.match(name), name, tensor) for name, tensor in decoder.state_dict().items())
        lower = ((name, tensor) for layer, name, tensor in found if layer is None or int(layer[1]) < self.first)
        key = hashlib.sha256(fingerprint(lower))
        about = [FORMAT, type(decoder).__name__, decoder.config.to_json_string()]
        about += [decoder.config._attn_implementation, decoder.device.type, decoder.dtype]
        about += [version("torch"), version("transformers")]
        key.update("\n".join(map(str, about)).encode())
        return f"frozen-{key.hexdigest()[:32]}"

    @contextmanager
    def _only(self, layers: nn.ModuleList, norm: nn.Module) -> Iterator[None]:
        whole = self.decoder.layers, self.decoder.norm
        self.decoder.layers, self.decoder.norm = layers, norm
        try:
            yield
        finally:
            self.decoder.layers, self.decoder.norm = whole

    @contextmanager
    def inputs(self, _: nn.Module, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """The states to call the model with; inside the block it is its upper layers alone (capture.Inputs)."""
        states_BTD = self.states(batch)
        with self._only(self.above, self.decoder.norm):
            yield {"inputs_embeds": states_BTD}

    def states(self, batch: Batch) -> Tensor:
        """Hidden states [B, T, D] that enter layer `first`, zeros at padding; computes and keeps what is missing."""
        lengths = batch.attention_BT.sum(1).tolist()
        rows = [ids[:n] for ids, n in zip(batch.input_ids_BT.tolist(), lengths, strict=True)]
        found = dict(enumerate(map(self.file.get, rows)))
        missing = [i for i, kept in found.items() if kept is None]
        if missing:
            found.update(zip(missing, self._computed(batch, missing, [rows[i] for i in missing]), strict=True))
        states_BTD = torch.zeros(*batch.input_ids_BT.shape, self.file.width, dtype=self.file.dtype)
        for i, states_TD in found.items():
            assert states_TD is not None
            states_BTD[i, : lengths[i]] = states_TD
        return to_device(states_BTD, self.decoder.device)

    def _computed(self, batch: Batch, indices: list[int], rows: Sequence[Sequence[int]]) -> list[Tensor]:
        longest = max(map(len, rows))
        ids_BT = to_device(batch.input_ids_BT[indices, :longest], self.decoder.device)
        with torch.no_grad(), self._only(self.below, nn.Identity()):
            states_BTD = self.decoder(input_ids=ids_BT, use_cache=False).last_hidden_state.cpu()
        cut = [states_TD[: len(ids)] for states_TD, ids in zip(states_BTD, rows, strict=True)]
        self.file.add(rows, cut)
        kept = [self.file.get(ids) for ids in rows]  # another run may have been first
        return [mine if theirs is None else theirs for mine, theirs in zip(cut, kept, strict=True)]

    def check(self) -> None:
        """Refuse an architecture where the layers cannot be run apart, by running a few tokens both ways."""
        ids_BT = torch.arange(3, 3 + PROBE).unsqueeze(0) % self.decoder.config.vocab_size
        batch = Batch(ids_BT, torch.ones_like(ids_BT), ids_BT)
        device_ids_BT = to_device(ids_BT, self.decoder.device)
        try:
            with torch.no_grad():
                whole = self.decoder(input_ids=device_ids_BT, use_cache=False).last_hidden_state.float()
                with self.inputs(self.decoder, batch) as given:
                    hidden = self.decoder(**given, use_cache=False).last_hidden_state.float()
            # a norm: states of another device's rounding must pass, single values of which may be far off
            same = (whole - hidden).norm() <= torch.finfo(self.file.dtype).eps ** 0.5 * whole.norm()
        except (AttributeError, LookupError, TypeError, ValueError):
            same = False
        if not same:
            raise unsupported(self.decoder)


def unsupported(model: PreTrainedModel, why: str = "cannot be run apart") -> ConfigError:
    """What a model whose layers cannot be run apart is told."""
    return ConfigError(f"model.frozen_cache_dir: the layers of {type(model).__name__} {why}; set it to null")


def lowest_layer(model: PreTrainedModel, sites: Sequence[str]) -> int:
    """The index of the lowest decoder layer that holds a site; 0 where one lies in no layer (nothing is frozen)."""
    names = {id(module): name for name, module in model.named_modules()}
    prefix = names[id(model.base_model)]
    found = [re.match(rf"{re.escape(prefix)}\.{LAYER.pattern}", name) for name in sites]
    head = model.get_output_embeddings()
    inside = [match for match, name in zip(found, sites, strict=True) if model.get_submodule(name) is not head]
    return min((int(match[1]) if match else 0 for match in inside), default=0)


def check_layers(skeleton: PreTrainedModel, cfg: ModelConfig) -> None:
    """What can be known before weights are loaded: that there are layers to run apart, and a folder to write to.

    Raises:
        ConfigError: an architecture without such layers, a folder that cannot be made or written.
    """
    if not cfg.frozen_cache_dir:
        return
    kinds = set(getattr(skeleton.config, "layer_types", None) or ())
    if len(kinds) > 1 or not isinstance(getattr(skeleton.base_model, "layers", None), nn.ModuleList):
        raise unsupported(skeleton)
    folder = Path(cfg.frozen_cache_dir).expanduser()
    with _named(cfg):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


@contextmanager
def _named(cfg: ModelConfig) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"model.frozen_cache_dir={cfg.frozen_cache_dir}: {error}; name another folder") from error


def frozen_inputs(model: PreTrainedModel, cfg: ModelConfig) -> Inputs:
    """How capture and scoring call the model: without the layers below the lowest site, where
    model.frozen_cache_dir asks for it and such layers exist.

    Raises:
        ConfigError: as check_layers; layers that give other numbers apart, or that lie on several devices.
    """
    check_layers(model, cfg)
    first = lowest_layer(model, cfg.edit_modules) if cfg.frozen_cache_dir else 0
    if not cfg.frozen_cache_dir or first == 0:
        return tokens_of
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        raise unsupported(model, "lie on several devices")
    with _named(cfg):
        parent, most = Path(cfg.frozen_cache_dir).expanduser(), int(cfg.frozen_cache_gib * 2**30)
        frozen = FrozenLayers(model, first, parent, most)
        frozen.check()
    return frozen.inputs


def digest(ids: Sequence[int]) -> bytes:
    """What a token sequence is found by."""
    return hashlib.blake2b(struct.pack(f"<{len(ids)}I", *ids), digest_size=16).digest()


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
