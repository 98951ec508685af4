"""Any model by the word that names it: whole, changed weights (export=delta), a run's directory, a saved session.

What it is shows before a weight loads, and so does most of what is wrong with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from config.check import ConfigError
from config.schema import ModelConfig, Precision
from exports.card import front_matter, origin
from exports.delta import Delta, base_config, check_files, check_shapes, is_delta, load_base, read_delta, read_weights
from files import read_json, sha256_of_json
from lifelong.origin import kept
from lifelong.resume import newest
from lifelong.saved_sessions import INSIDE
from model import fingerprint, load_model, model_config, model_skeleton, model_source, pick_dtype

log = logging.getLogger(__name__)

AUTO = "auto"
RUN = ("checkpoints", "results.json", "metrics.jsonl", "status.json")  # what makes a folder a run's


@dataclass(frozen=True, slots=True)
class AnyModel:
    """A model that can be loaded: the one that its files are read from, and what replaces some of its weights."""

    key: str
    name: str
    kind: str
    whole: ModelConfig
    dtype: torch.dtype
    base: str | None
    delta: Delta | None = None
    checkpoint: tuple[Path, dict[str, Any]] | None = None

    def skeleton(self) -> PreTrainedModel:
        """Its modules without any weight.

        Raises:
            ConfigError: it cannot be opened; the base is not the delta's.
        """
        with named(self.key):
            model = model_skeleton(self.whole)
            if self.delta:
                check_shapes(self.delta, self.whole.name_or_path, model)
                check_files(self.delta, self.whole.name_or_path, Path(model_source(self.whole)))
            return model

    def load(self, device: torch.device) -> PreTrainedModel:
        """The model with all its weights, in `dtype`.

        Raises:
            ConfigError: it cannot be opened; the base is not the one that the changed weights belong to.
        """
        with named(self.key):
            model = self._loaded(device)
        for parameter in model.parameters():  # buffers stay as from_pretrained makes them
            parameter.data = parameter.data.to(self.dtype)
        return model

    def _loaded(self, device: torch.device) -> PreTrainedModel:
        if self.delta:
            model = load_base(self.delta, self.whole.name_or_path, device)
            return _with(model, read_weights(self.delta))
        if self.checkpoint is None:
            return load_model(self.whole, device)
        folder, said = self.checkpoint
        new = _weights(folder / "state.safetensors")
        precision = Precision(str(next(iter(new.values())).dtype).removeprefix("torch."))
        model = load_model(replace(self.whole, precision=precision), device)
        start = kept(folder.parents[1]) if said["config"].get("continue_from") else None
        began = start.weights if start else said["model"]
        if sha256_of_json("", fingerprint(model.state_dict().items())) != began:
            raise ConfigError(
                f"{self.name}: the weights of {self.whole.name_or_path} are not those that the run started with"
            )
        return _with(model, new)


@contextmanager
def named(key: str) -> Iterator[None]:
    """Say in an error about a model which key named it."""
    try:
        yield
    except ConfigError as error:
        text = str(error).removeprefix("model.name_or_path=")
        about_it = text != str(error) or "=" not in text.partition(": ")[0]
        raise ConfigError(f"{key}={text}" if about_it else text) from error


def find(key: str, name: str, model: ModelConfig, device: torch.device, *, base: str | None = None) -> AnyModel:
    """What a name stands for; `model` says how it is loaded, `base` where the base of a delta is.

    Without model.precision the dtype is the one that the weights were saved in, of a run's directory the run's, and
    float32 on the CPU.

    Raises:
        ConfigError: a folder that is no model, delta or run directory; a run that keeps no checkpoint.
    """
    how, folder = replace(model, name_or_path=name, edit_modules=[], frozen_cache_dir=None), Path(name).expanduser()
    is_folder = os.path.isdir(folder)  # unlike Path.is_dir it takes any name
    if is_folder and is_delta(folder):
        return _delta(key, name, how, device, base)
    if is_folder and not (folder / "config.json").is_file():
        return _run(key, name, how, device)
    with named(key):
        settings = model_config(how)
    kind, made_from = "model", front_matter(folder).get("edited_from") if is_folder else None
    if is_folder and (folder / INSIDE / "session.json").is_file():
        kind, saved = "session", _session(folder)
        made_from = saved.name_or_path
        how = _as_run(how, saved)
    dtype = str(settings.dtype).removeprefix("torch.")
    precision = how.precision if how.precision is not Precision.auto else _own(dtype, device)
    other = made_from if isinstance(made_from, str) and origin(made_from) != origin(name) else None
    how = replace(how, precision=precision)
    return AnyModel(key, name, kind, how, pick_dtype(how, device), other)


def _own(dtype: str, device: torch.device) -> Precision:
    """The dtype of saved weights; float32 on the CPU, which is exact and faster there."""
    return Precision.float32 if device.type == "cpu" else Precision.__members__.get(dtype, Precision.float32)


def _delta(key: str, name: str, how: ModelConfig, device: torch.device, base: str | None) -> AnyModel:
    with named(key):
        delta = read_delta(name)
        read_weights(delta)
    precision = how.precision if how.precision is not Precision.auto else _own(delta.dtype, device)
    source = base or delta.base
    whole = replace(base_config(delta, source), embedded_cache_dir=how.embedded_cache_dir, download=how.download)
    dtype = pick_dtype(replace(how, precision=precision), device)
    return AnyModel(key if base is None else "score_base", name, "delta", whole, dtype, source, delta=delta)


def _run(key: str, name: str, how: ModelConfig, device: torch.device) -> AnyModel:
    folder = Path(name).expanduser()
    if not any((folder / one).exists() for one in RUN):
        what = "neither config.json (a model), delta.json (changed weights) nor checkpoints (a run's directory)"
        raise ConfigError(f"{key}={name}: the folder holds {what}")
    with named(key):
        checkpoint = newest(folder)
    if checkpoint is None:
        raise ConfigError(
            f"{key}={name}: the run keeps no intact checkpoint (checkpoint.every=0 keeps none); name the folder that "
            "model_cache=true saved its model to"
        )
    said, done = checkpoint[1]["config"]["model"], checkpoint[1]["state"]["loop"]
    if not (folder / "results.json").is_file():
        log.warning("%s=%s: the run did not end; its weights are those after %d edits", key, name, done["edits"])
    whole = _as_run(replace(how, name_or_path=said["name_or_path"]), _model_config(said))
    base = said["name_or_path"]
    return AnyModel(key, name, "run", whole, pick_dtype(whole, device), base, checkpoint=checkpoint)


def _as_run(how: ModelConfig, run: ModelConfig) -> ModelConfig:
    """In the dtype in which a run has the model, unless another one was asked for."""
    return how if how.precision is not Precision.auto else replace(how, precision=run.precision, half=run.half)


def _model_config(said: Mapping[str, Any]) -> ModelConfig:
    return ModelConfig(name_or_path=said["name_or_path"], precision=Precision(said["precision"]), half=said["half"])


def _session(folder: Path) -> ModelConfig:
    try:
        return _model_config(read_json(folder / INSIDE / "session.json")["config"]["model"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{folder}: its {INSIDE}/session.json cannot be read ({error})") from error


def _weights(file: Path) -> dict[str, Tensor]:
    """The sites' weights in a checkpoint, by the name of the parameter."""
    with safe_open(file, "pt") as tensors:
        names = [name for name in tensors.keys() if name.startswith("weight/")]  # noqa: SIM118  no mapping
        return {f"{name.removeprefix('weight/')}.weight": tensors.get_tensor(name) for name in names}


@torch.no_grad()
def _with(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """The model with these weights, written where the old ones lie."""
    for name, weight in weights.items():
        model.get_parameter(name).copy_(weight)
    return model
