"""Changed weights alone: saved with the identity of the base that they belong to, checked, and put back into it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from config.check import ConfigError
from config.schema import ModelConfig, Precision
from exports.card import delta_note
from exports.folders import check_save_folder, save_model
from files import read_json, regular, sha256_of_json, whole_folder, write_json
from model import CARD, DELTA_FILE, load_model, load_tokenizer

log = logging.getLogger(__name__)

FORMAT, VERSION = "stableedit-delta", 1
WEIGHTS = "delta.safetensors"
VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")  # differ between equal models


@dataclass(frozen=True, slots=True)
class Delta:
    """A delta's description: the base it belongs to, and per changed tensor its shape, dtype and hashes."""

    folder: Path
    base: str
    architecture: str
    config_sha256: str
    dtype: str
    tensors: dict[str, dict[str, Any]]


def tensor_sha256(tensor: Tensor) -> str:
    """sha256 of a tensor's bytes in row-major order, whatever its dtype and device."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


def weights_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter under every name that state_dict gives it, tied ones too."""
    return dict(model.named_parameters(remove_duplicate=False))


def base_identity(model: PreTrainedModel, names: Sequence[str]) -> dict[str, Any]:
    """The identity of a model before its first edit; of its weights only those of the named sites are read.

    Keys: architecture, config_sha256, dtype, and tensors: sha256 of the bytes by the name in state_dict.
    """
    settings = {key: value for key, value in model.config.to_dict().items() if key not in VOLATILE}
    weights = weights_by_name(model)
    return {
        "architecture": type(model).__name__,
        "config_sha256": sha256_of_json(settings),
        "dtype": str(model.dtype).removeprefix("torch."),
        "tensors": {f"{name}.weight": tensor_sha256(weights[f"{name}.weight"]) for name in names},
    }


def save_delta(model: PreTrainedModel, base: str, identity: dict[str, Any], folder: str | Path, card: str) -> Path:
    """Write delta.safetensors, delta.json and the card beside the folder, then rename; returns the absolute folder.

    The weights are those named in `identity` (base_identity before the first edit), in the model's dtype.
    """
    weights = {name: weights_by_name(model)[name].detach().cpu().contiguous() for name in identity["tensors"]}
    tensors = {
        name: identity_of(weight) | {"sha256_before": identity["tensors"][name]} for name, weight in weights.items()
    }
    described = {"format": FORMAT, "version": VERSION, "base": base} | identity | {"tensors": tensors}
    check_save_folder(folder)
    with whole_folder(Path(folder)) as fresh:
        save_file(weights, fresh / WEIGHTS, metadata={"format": "pt"})
        write_json(fresh / DELTA_FILE, described)
        (fresh / CARD).write_text(card, encoding="utf-8")
    return Path(folder).expanduser().absolute()


def identity_of(weight: Tensor) -> dict[str, Any]:
    """What a delta declares of a changed weight: shape, dtype and the hash of its bytes."""
    dtype = str(weight.dtype).removeprefix("torch.")
    return {"shape": list(weight.shape), "dtype": dtype, "sha256": tensor_sha256(weight)}


def is_delta(folder: str | Path) -> bool:
    """Whether a folder says that it holds changed weights."""
    return (Path(folder).expanduser() / DELTA_FILE).is_file()


def read_delta(folder: str | Path) -> Delta:
    """What a delta's folder says of it.

    Raises:
        ConfigError: no delta, one of another version, or one that cannot be read.
    """
    path = Path(folder).expanduser()
    if not is_delta(path):
        raise ConfigError(f"{folder}: holds no {DELTA_FILE}; name a folder that export=delta wrote")
    file = path / DELTA_FILE
    try:
        found = read_json(file)
        made_by = (found["format"], found["version"])
        described = {key: found[key] for key in ("base", "architecture", "config_sha256", "dtype", "tensors")}
        texts = [described[key] for key in ("base", "architecture", "config_sha256", "dtype")]
        texts += [said[key] for said in described["tensors"].values() for key in ("dtype", "sha256", "sha256_before")]
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise TypeError(f"{wrong[0]!r} is no text")
    except (OSError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{file}: cannot be read ({type(error).__name__}: {error}); export the delta again"
        ) from error
    if not described["tensors"]:
        raise ConfigError(f"{file}: names no tensor that was changed; export the delta again")
    if made_by != (FORMAT, VERSION) or described["dtype"] not in {*Precision.__members__} - {"auto"}:
        kind = f"{made_by[0]} {made_by[1]} in {described['dtype']}"
        raise ConfigError(f"{file}: is {kind}; this program reads {FORMAT} {VERSION} in float32, bfloat16 or float16")
    return Delta(path, **described)


def read_weights(delta: Delta) -> dict[str, Tensor]:
    """The changed weights by name, on the CPU.

    Raises:
        ConfigError: a file that is missing or damaged; names the tensor whose bytes are not those saved.
    """
    file = delta.folder / WEIGHTS
    try:
        weights = load_file(regular(file))
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}); export the delta again") from error
    undeclared = sorted(weights.keys() - delta.tensors.keys())
    if undeclared:
        raise ConfigError(f"{file}: holds {undeclared[0]}, which {DELTA_FILE} does not name; export the delta again")
    for name, said in delta.tensors.items():
        if name not in weights or said | identity_of(weights[name]) != said:
            raise ConfigError(f"{file}: {name} is not what {DELTA_FILE} says; export the delta again")
    return weights


def base_config(delta: Delta, base: str) -> ModelConfig:
    """How a delta's base is loaded: in the dtype that it was edited in."""
    return ModelConfig(name_or_path=base, precision=Precision(delta.dtype), edit_modules=[])


def load_base(delta: Delta, base: str, device: torch.device) -> PreTrainedModel:
    """The model that a delta belongs to, in the delta's dtype, checked.

    Raises:
        ConfigError: it cannot be opened, or is another model; names the first tensor that differs.
    """
    model = load_model(base_config(delta, base), device)
    check_shapes(delta, base, model)
    weights, belongs = weights_by_name(model), _belongs(delta)
    for name, said in delta.tensors.items():
        if tensor_sha256(weights[name]) != said["sha256_before"]:
            raise ConfigError(f"{base}: {name} differs from the weight that was edited; {belongs}")
    if base_identity(model, [])["config_sha256"] != delta.config_sha256:
        log.warning("%s: its settings are not quite those of the model that was edited; %s", base, belongs)
    return model


def check_shapes(delta: Delta, base: str, model: PreTrainedModel) -> None:
    """Refuse a base of another kind, or without the weights that were changed; a model on the meta device will do.

    Raises:
        ConfigError: names the first tensor that differs.
    """
    belongs = _belongs(delta)
    if type(model).__name__ != delta.architecture:
        raise ConfigError(f"{base}: is a {type(model).__name__}, not a {delta.architecture}; {belongs}")
    weights = weights_by_name(model)
    for name, said in delta.tensors.items():
        if name not in weights:
            raise ConfigError(f"{base}: has no {name}; {belongs}")
        shape = list(weights[name].shape)
        if shape != said["shape"]:
            raise ConfigError(f"{base}: {name} is {shape}, not {said['shape']}; {belongs}")


def check_files(delta: Delta, base: str, folder: Path) -> None:
    """Refuse a base by the files in its folder, as far as its weights lie there under the names that a delta has.

    Raises:
        ConfigError: names the first tensor that differs.
    """
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                found = {name: tensors.get_tensor(name) for name in delta.tensors.keys() & set(tensors.keys())}
        except (OSError, SafetensorError):
            continue  # whoever loads the model says what is wrong
        for name, weight in sorted(found.items()):
            if tensor_sha256(weight.to(getattr(torch, delta.dtype))) != delta.tensors[name]["sha256_before"]:
                raise ConfigError(f"{base}: {name} differs from the weight that was edited; {_belongs(delta)}")


def _belongs(delta: Delta) -> str:
    return f"{delta.folder} holds changes of {delta.base}"


def apply_delta(base: str, folder: str | Path, out: str | Path) -> Path:
    """Save in `out` the whole model that a delta stands for: bitwise what export=full saves.

    Raises:
        ConfigError: `out` holds something else, a delta that cannot be read, a base that is not its own.
    """
    check_save_folder(out, "OUT")
    delta = read_delta(folder)
    new = read_weights(delta)
    model = load_base(delta, base, torch.device("cpu"))
    model.load_state_dict(new, strict=False)  # the changed weights alone
    path, card = delta.folder / CARD, None
    if path.is_file() and not path.is_symlink():  # a link may lead to what is not for sharing
        card = path.read_text(encoding="utf-8", errors="replace").replace(delta_note(delta.base), "")
    return save_model(model, load_tokenizer(base_config(delta, base)), out, card)
