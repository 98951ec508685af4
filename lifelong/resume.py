"""Checkpoints of a whole run, so that a run killed at any moment goes on as if nothing had happened.

A checkpoint is a folder RUN/checkpoints/NNNNNNNN with state.safetensors (what the next step depends on)
and state.json (how far the run is, what it belongs to, and the sha256 of the tensors). It is written
beside its place and renamed; the last two are kept.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from config.check import ConfigError
from editor.base import Editor
from files import flatten, sha256_of, whole_folder, write_json

log = logging.getLogger(__name__)

KEPT = 2
# what may differ between a run and its continuation without moving a number
FREE = (
    "wandb.",
    "checkpoint.",
    "resume",
    "editor.cache_dir",
    "model_cache",
    "model.embedded_cache_dir",
    "dataset.cache_dir",
    "eval.cache_dir",
    "eval.per_edit",
    "eval.examples",
    "export",
    "report",
    "verbose",
)


@dataclass
class Progress:
    """How far a run is, in JSON's types."""

    phase: str = "train"
    epoch: int = 0
    trained: int = 0
    position: int = 0
    edits: int = 0
    tokens: int = 0
    changed: bool = False
    downstream_done: int = -1
    saved: int = 0
    metrics_bytes: int = 0
    watched: int = -1
    logged_before: bool = False
    losses: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)


def save(run_dir: Path, editor: Editor, progress: Progress, config: dict[str, Any], files: dict[str, str]) -> Path:
    """Write a checkpoint beside its place, rename it, and drop all but the last two.

    Raises:
        OSError: it could not be written; the checkpoints before it are untouched.
    """
    parent = run_dir / "checkpoints"
    parent.mkdir(parents=True, exist_ok=True)
    progress.saved += 1
    folder = parent / f"{progress.saved:08d}"  # there already: a damaged one that the run was resumed from before
    with whole_folder(folder) as fresh:
        tensors = {name: value.contiguous() for name, value in editor.state_tensors().items()}
        save_file(tensors | {"rng": torch.get_rng_state()}, fresh / "state.safetensors")
        digest = sha256_of(fresh / "state.safetensors")
        write_json(
            fresh / "state.json", {"progress": asdict(progress), "config": config, "files": files, "sha256": digest}
        )
    for old in sorted(path for path in parent.iterdir() if path != folder)[: -(KEPT - 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def newest(run_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest intact checkpoint and its state; damaged ones are named in the log and passed over."""
    parent = run_dir / "checkpoints"
    for folder in sorted(parent.glob("[0-9]*"), reverse=True):
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if sha256_of(folder / "state.safetensors") != state["sha256"]:
                raise ValueError("state.safetensors does not have the sha256 that state.json names")
        except (OSError, ValueError, KeyError) as error:
            log.warning("checkpoint %s is damaged (%s): the one before it is used", folder, error)
            continue
        return folder, state
    return None


def load(folder: Path, editor: Editor) -> None:
    """Take over a checkpoint's tensors."""
    tensors = load_file(folder / "state.safetensors", device=str(editor.solve_device))
    torch.set_rng_state(tensors.pop("rng").cpu())
    editor.load_state_tensors(tensors)


def check_same(state: dict[str, Any], config: dict[str, Any], files: dict[str, str]) -> None:
    """Refuse to go on with settings or files that would change the numbers.

    Raises:
        ConfigError: names each key with both values, or the file that changed.
    """
    then, now = flatten(state["config"]), flatten(config)
    changed = [
        f"{key} was {then.get(key)}, is {now.get(key)}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and not key.startswith(FREE)
    ]
    if changed:
        raise ConfigError(f"resume: these settings would change the numbers: {'; '.join(changed)}")
    for path, digest in state["files"].items():
        if files.get(path) != digest:
            raise ConfigError(f"resume: {path} is not the file that the run started with: its sha256 changed")
