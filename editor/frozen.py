"""Layers below the lowest edited one never change: what they make of a prompt is computed once, for a run or for all.

A state depends on its prompt alone, not on the prompts that it is computed with: a run which goes on, and computes
anew what the run before it had kept, has the same bits.

Shape suffixes: B sequences, R sequences of a group, T positions, D hidden size.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from config.check import ConfigError
from config.schema import ModelConfig
from data.batches import Batch, to_device
from editor.capture import Inputs, tokens_of
from editor.states import StateFile, StateMemory
from model import fingerprint

FORMAT = 4  # of the states' folder; raise it when what is kept changes
LAYER = re.compile(r"layers\.(\d+)\.")
PROBE = 12  # tokens of the sequence on which the short way is compared with the whole model
Group = tuple[int, int]
GROUPS: dict[str, Group] = {"cpu": (2, 128), "cuda": (16, 512)}
"""How sequences are computed together: what their lengths are padded to a multiple of, and padded tokens of a group.

A group is filled up, so that sequences of a length always come in the same number: a product's rows may be rounded by
how many there are. They are as few as keep a device busy.
"""
AT_ONCE = 2048  # sequences whose states wait on the device for their way to the host


class FrozenLayers:
    """The hidden states that enter layer `first` of a decoder, kept by token sequence; how capture calls the model."""

    def __init__(self, model: PreTrainedModel, first: int, most: int, parent: Path | None = None) -> None:
        """`most` bytes are kept: below the folder `parent`, or in memory."""
        decoder: Any = model.base_model  # of whatever class: `check` tells whether it has what is used here
        self.decoder = decoder
        self.first = first
        layers = self.decoder.layers
        self.below, self.above = layers[:first], layers[first:]
        embeddings = model.get_input_embeddings()
        assert isinstance(embeddings.weight, Tensor)
        self.width, self.dtype, self.most = embeddings.weight.shape[1], embeddings.weight.dtype, most
        self._weights = [*embeddings.parameters(), *self.below.parameters()]
        self._seen = self._versions()
        self.group = GROUPS.get(self.decoder.device.type, GROUPS["cpu"])
        self._ahead: Mapping[tuple[int, ...], Tensor] = {}
        self.kept: StateFile | StateMemory = (
            StateFile(parent / self._key(), self.width, self.dtype, most) if parent else StateMemory(most)
        )

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
    def __call__(self, _: nn.Module, batch: Batch) -> Iterator[dict[str, Tensor]]:
        """The states to call the model with; inside the block it is its upper layers alone (capture.Inputs)."""
        rows = sequences(batch)
        found = self._found(rows)
        states_BTD = torch.zeros(*batch.input_ids_BT.shape, self.width, dtype=self.dtype)
        for state_TD, ids in zip(states_BTD, rows, strict=True):
            state_TD[: len(ids)] = found[ids]
        with self._only(self.above, self.decoder.norm):
            yield {"inputs_embeds": to_device(states_BTD, self.decoder.device)}

    def look_ahead(self, rows: Iterable[Sequence[int]]) -> None:
        """Have the states of all these at hand until the next such call: in full groups little is padding."""
        self._ahead = self._found(map(tuple, rows))

    def _versions(self) -> list[tuple[int, int]]:
        return [(one.data_ptr(), 0 if one.is_inference() else one._version) for one in self._weights]

    def _found(self, rows: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], Tensor]:
        """The states [T, D] by sequence, on the host; computes and keeps what is missing."""
        if isinstance(self.kept, StateMemory) and self._seen != (now := self._versions()):
            self._seen, self._ahead, self.kept = now, {}, StateMemory(self.most)  # somebody wrote into the layers
        found = {ids: self._ahead.get(ids) for ids in rows}
        found = {ids: self.kept.get(ids) if state is None else state for ids, state in found.items()}
        missing = sorted((ids for ids, state in found.items() if state is None), key=len)
        for start in range(0, len(missing), AT_ONCE):
            part = missing[start : start + AT_ONCE]
            self.kept.add(part, computed := self._computed(part))
            for ids, mine in zip(part, computed, strict=True):
                theirs = self.kept.get(ids)  # another run may have been first
                found[ids] = mine if theirs is None else theirs
        return {ids: state for ids, state in found.items() if state is not None}

    def _computed(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """The states [T, D] of sequences in order of length, on the host."""
        parts: list[Tensor] = []
        for (longest, count), alike in groupby(rows, lambda ids: _shape(len(ids), self.group)):
            group = list(alike)
            for start in range(0, len(group), count):
                real = group[start : start + count]
                ids_RT = torch.zeros(count, longest, dtype=torch.long)
                for row_T, ids in zip(ids_RT, real, strict=False):
                    row_T[: len(ids)] = torch.tensor(ids)
                states_RTD = self._through(self.below, ids_RT)
                parts += [state_TD[: len(ids)] for state_TD, ids in zip(states_RTD, real, strict=False)]
        states_TD = torch.cat(parts).cpu()
        return [state_TD.clone() for state_TD in states_TD.split([len(ids) for ids in rows])]

    def _through(self, layers: nn.ModuleList, ids_RT: Tensor) -> Tensor:
        """The states [R, T, D] behind some layers, on the model's device."""
        with torch.no_grad(), self._only(layers, nn.Identity()):
            ids_RT = to_device(ids_RT, self.decoder.device)
            return self.decoder(input_ids=ids_RT, use_cache=False).last_hidden_state

    def _is_alone(self) -> bool:
        """Whether a prompt's states are bitwise the same wherever it stands in a group, and beside whatever.

        Experts are given tokens of all sequences together; of other layers the first is tried, which is as they are.
        """
        if any("expert" in name for name in self.decoder.config.to_dict()):
            return False
        for length in (PROBE, 2 * PROBE + 1):
            longest, count = _shape(length, self.group)
            ids_RT = torch.arange(3, 3 + count * longest).view(count, longest) % self.decoder.config.vocab_size
            ids_RT[::2] = ids_RT[0].clone()
            first, *others = self._through(self.below[:1], ids_RT)[::2, :length]
            if not all(torch.equal(one, first) for one in others):
                return False
        return True

    def check(self) -> str:
        """Run a few tokens both ways; why the layers cannot be run apart, nothing where they can."""
        ids_BT = torch.arange(3, 3 + PROBE).unsqueeze(0) % self.decoder.config.vocab_size
        batch = Batch(ids_BT, torch.ones_like(ids_BT), ids_BT)
        device_ids_BT = to_device(ids_BT, self.decoder.device)
        try:
            alone = self._is_alone()
            with torch.no_grad():
                whole = self.decoder(input_ids=device_ids_BT, use_cache=False).last_hidden_state.float()
                with self(self.decoder, batch) as given:
                    hidden = self.decoder(**given, use_cache=False).last_hidden_state.float()
            # a norm: states of another device's rounding must pass, single values of which may be far off
            if not (whole - hidden).norm() <= torch.finfo(self.dtype).eps ** 0.5 * whole.norm():
                return "cannot be run apart"
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
            return "cannot be run apart"
        return "" if alone or isinstance(self.kept, StateFile) else "round a prompt by those beside it"


def _shape(length: int, group: Group) -> tuple[int, int]:
    """(T, R) of the groups in which sequences of a length are computed."""
    multiple, tokens = group
    longest = -(-max(1, length) // multiple) * multiple
    return longest, max(1, tokens // longest)


def sequences(batch: Batch) -> list[tuple[int, ...]]:
    """The token sequences of a batch, without padding."""
    lengths = batch.attention_BT.sum(1).tolist()
    return [tuple(ids[:n]) for ids, n in zip(batch.input_ids_BT.tolist(), lengths, strict=True)]


def look_ahead(inputs: Inputs, batches: Iterable[Batch]) -> None:
    """Say which batches the model will be called with next: all that can be made before is made now, together."""
    if isinstance(inputs, FrozenLayers):
        inputs.look_ahead(chain.from_iterable(map(sequences, batches)))


def unsupported(model: PreTrainedModel, why: str) -> ConfigError:
    """What a model whose layers cannot be run apart is told."""
    name = type(model.base_model).__name__
    return ConfigError(f"model.frozen_cache_dir: the layers of {name} {why}; set it to null")


def lowest_layer(model: PreTrainedModel, sites: Sequence[str]) -> int:
    """The index of the lowest decoder layer that holds a site; 0 where one lies in no layer (nothing is frozen)."""
    names = {id(module): name for name, module in model.named_modules()}
    prefix = names[id(model.base_model)]
    found = [re.match(rf"{re.escape(prefix)}\.{LAYER.pattern}", name) for name in sites]
    head = model.get_output_embeddings()
    inside = [match for match, name in zip(found, sites, strict=True) if model.get_submodule(name) is not head]
    return min((int(match[1]) if match else 0 for match in inside), default=0)


def _obstacle(model: PreTrainedModel) -> str:
    """Why a model's layers cannot be run apart, as far as its shape tells; nothing where they may."""
    kinds = set(getattr(model.config, "layer_types", None) or ())
    if len(kinds) > 1 or not isinstance(getattr(model.base_model, "layers", None), nn.ModuleList):
        return "cannot be run apart"
    places = set((getattr(model, "hf_device_map", None) or {}).values())
    return "lie on several devices" if len(places) > 1 else ""


def check_layers(skeleton: PreTrainedModel, cfg: ModelConfig) -> None:
    """What can be known before weights are loaded: that there are layers to run apart, and a folder to write to.

    Raises:
        ConfigError: an architecture without such layers, a folder that cannot be made or written.
    """
    if not cfg.frozen_cache_dir:
        return
    if why := _obstacle(skeleton):
        raise unsupported(skeleton, why)
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
    """How capture and scoring call the model: without the layers below the lowest site, where such layers exist and
    model.frozen_cache_dir or model.frozen_memory_gib lets their states be kept.

    Raises:
        ConfigError: as check_layers; with model.frozen_cache_dir, layers that give other numbers apart, or that lie
            on several devices. Nothing is kept in memory there, and nothing said.
    """
    check_layers(model, cfg)
    folder = cfg.frozen_cache_dir
    if not (folder or cfg.frozen_memory_gib) or (first := lowest_layer(model, cfg.edit_modules)) == 0:
        return tokens_of
    if not (why := _obstacle(model)):
        most = int((cfg.frozen_cache_gib if folder else cfg.frozen_memory_gib) * 2**30)
        with _named(cfg):
            frozen = FrozenLayers(model, first, most, Path(folder).expanduser() if folder else None)
            if not (why := frozen.check()):
                return frozen
    if folder:
        raise unsupported(model, why)
    return tokens_of
