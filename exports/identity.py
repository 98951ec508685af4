"""What tells one model from another: its architecture, its settings, the bytes of chosen weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from files import sha256_of_json

VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")  # differ between equal models


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
