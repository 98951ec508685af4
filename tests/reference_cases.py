"""Run a reference case (docs/design.md, 8) and hold what it left against what was expected."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

PROJECT = Path(__file__).resolve().parent.parent
OWN = PROJECT / "tests" / "reference"
FOLDER = Path(os.environ.get("REFERENCE_DIR") or OWN).resolve()

# keys of the published program's resolved config that steer nothing here
UNUSED = {
    "dataset.num_seq",
    "editor.n_test",
    "model_device",
    "editor_device",
    "editor.load_checkpoint",
    "model.class_name",
}


@dataclass(frozen=True)
class Case:
    """One folder of reference/cases."""

    name: str
    expected: dict[str, Any]
    tensors: dict[str, Tensor]


def case_names() -> list[str]:
    """Every case in the folder."""
    return sorted(path.parent.name for path in (FOLDER / "cases").glob("*/expected.json"))


def load_case(name: str, root: Path = FOLDER) -> Case:
    """Read one case."""
    folder = root / "cases" / name
    return Case(name, json.loads((folder / "expected.json").read_text()), load_file(folder / "tensors.safetensors"))


def overrides(expected: dict[str, Any], work_dir: Path, root: Path = FOLDER) -> list[str]:
    """The case's config as command-line overrides of ours."""
    config = expected["config"]
    name = config["editor"]["name"]
    words = [f"dataset={config['dataset']['name']}", "model=smollm2-135m", f"editor={name}", "wandb.mode=disabled"]
    words += ["report=false", "eval.examples=0", "eval.cache_dir=null"]
    flat = {key: value for key, value in config.items() if not isinstance(value, dict)}
    for group in ("dataset", "model", "editor"):
        flat |= {f"{group}.{key}": value for key, value in config[group].items() if key != "name"}
    for key, value in flat.items():
        if key in UNUSED:
            continue
        if key.endswith("_path") or key == "model.name_or_path":
            value = root / value
        if key == "editor.cache_dir":
            value = work_dir / "cache"
        words.append(f"{key}={value}".replace("'", "").replace("None", "null"))
    return [*words, "model_device=cpu", "editor_device=cpu", f"model.name={config['model']['name']}"]


def relative(actual: Tensor, expected: Tensor) -> float:
    """Relative Frobenius distance."""
    expected = expected.double()
    distance = (actual.detach().double().reshape(expected.shape) - expected).norm()
    return (distance / expected.norm().clamp(min=torch.finfo(torch.float64).tiny)).item()
