"""Trained networks on disk: network, optimizer and statistics, so that training need not be repeated.

A checkpoint is a folder: tensors.safetensors and checkpoint.json, which says what it belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from config.check import ConfigError
from config.schema import LearnedConfig
from editor.base import below
from editor.learned import LearnedEditor
from files import whole_folder, write_json

TENSORS, DESCRIPTION = "tensors.safetensors", "checkpoint.json"


def describe(editor: LearnedEditor) -> dict[str, Any]:
    """What a checkpoint must have in common with the editor that loads it."""
    return {
        "editor": editor.cfg.name,
        "rank": editor.cfg.rank,
        "n_blocks": editor.cfg.n_blocks,
        "sites": {site.name: list(site.shape) for site in editor.sites},
    }


def _tensors(editor: LearnedEditor) -> dict[str, Tensor]:
    found = editor.networks.tensors()
    for shape, statistics in editor.statistics.items():
        found |= {f"statistics/{shape}/{name}": value for name, value in statistics.state_dict().items()}
    return {name: value.contiguous() for name, value in found.items()}


def save(editor: LearnedEditor, folder: Path) -> None:
    """Write a checkpoint beside its place, then rename."""
    with whole_folder(folder) as fresh:
        save_file(_tensors(editor), fresh / TENSORS)
        write_json(fresh / DESCRIPTION, describe(editor))


def read_description(folder: str | Path) -> dict[str, Any]:
    """The description of a checkpoint, before anything is loaded.

    Raises:
        ConfigError: the folder is no checkpoint.
    """
    path = Path(folder).expanduser() / DESCRIPTION
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"editor.load_checkpoint={folder}: is no checkpoint ({error}); name the folder 'checkpoint' of a run "
            "that had editor.save_checkpoint=true"
        ) from error


def check(cfg: LearnedConfig, site_names: Sequence[str]) -> None:
    """Refuse editor.load_checkpoint where it cannot serve, as far as that shows without a model.

    Raises:
        ConfigError: no checkpoint, or one of another editor, rank, number of blocks or sites; names what differs.
    """
    saved = read_description(cfg.load_checkpoint or "")
    wanted = {"editor": cfg.name, "rank": cfg.rank, "n_blocks": cfg.n_blocks}
    _refuse_differences(cfg.load_checkpoint, saved, wanted)
    _refuse_differences(cfg.load_checkpoint, {"sites": list(saved.get("sites", {}))}, {"sites": list(site_names)})


def _refuse_differences(folder: str | Path | None, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, value in wanted.items():
        if saved.get(key) != value:
            raise ConfigError(f"editor.load_checkpoint={folder}: its {key} is {saved.get(key)}, this run's is {value}")


def load(editor: LearnedEditor, folder: str | Path) -> None:
    """Take over networks, optimizer and statistics.

    Raises:
        ConfigError: no checkpoint, or one of another editor, rank, number of blocks or sites; names what differs.
    """
    _refuse_differences(folder, read_description(folder), describe(editor))
    tensors = load_file(Path(folder).expanduser() / TENSORS, device=str(editor.solve_device))
    editor.networks.load_tensors(tensors)
    for shape, statistics in editor.statistics.items():
        statistics.load_state_dict(below(tensors, f"statistics/{shape}/"))
