"""Checkpoints of a whole run, so that a run killed at any moment goes on as if nothing had happened.

A checkpoint is a folder RUN/checkpoints/NNNNNNNN with state.safetensors (what the next step depends on)
and state.json (the state of every owner of some, the config and file hashes that the checkpoint belongs to,
and the sha256 of the tensors). It appears as a whole; the last ones are kept (checkpoint.keep).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors.torch import load_file, save_file

from config.check import ConfigError
from config.choices import AUTO
from config.sizes import SIZES, at_once
from files import finite, flatten, read_json, sha256_of, sha256_of_json, whole_folder, write_json
from lifelong.session_state import SessionState

log = logging.getLogger(__name__)

FORMAT = 3
PARTS = {"number", "config", "files", "state", "model", "tensors", "sha256"}  # of state.json
# what may differ between a run and its continuation without moving a number
FREE = ("wandb.", "checkpoint.", "resume", "editor.cache_dir", "model_cache", "model.embedded_cache_dir", "export",
        "dataset.cache_dir", "eval.cache_dir", "eval.per_edit", "eval.judge_", "eval.examples", "report", "verbose",
        "undo", "steps")  # fmt: skip
SHOWN = 8  # settings that a refusal names
DEVICES = ("model_device", "editor_device")


class Owner(Protocol):
    """Whoever owns a part of a run's state, in JSON's types."""

    def state_dict(self) -> dict[str, Any]:
        """The state as it is now."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict gave."""


class Kept:
    """An owner whose state are the attributes that `kept` names."""

    kept: ClassVar[tuple[str, ...]]

    def state_dict(self) -> dict[str, Any]:
        """The state as it is now."""
        return {name: getattr(self, name) for name in self.kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict gave."""
        for name in self.kept:
            setattr(self, name, state[name])


class Checkpoints:
    """The checkpoints of one run directory, with the config and file hashes that they belong to."""

    def __init__(self, run_dir: Path, config: dict[str, Any], files: dict[str, str]) -> None:
        self.folder, self.config, self.files = run_dir / "checkpoints", config, files
        self.number = 0

    def save(self, session: SessionState, owners: Mapping[str, Owner]) -> Path:
        """Write the next checkpoint, and drop all but the last checkpoint.keep.

        Raises:
            OSError: it could not be written; the checkpoints before it are untouched.
        """
        folder = self.folder / f"{self.number + 1:08d}"  # may be there, damaged: the run was resumed from before it
        state = {name: owner.state_dict() for name, owner in owners.items()}
        with whole_folder(folder) as fresh:
            save_file(session.tensors(), fresh / "state.safetensors")
            said = {"format": FORMAT, "number": self.number + 1, "config": self.config, "files": self.files}
            said |= {"state": state, "model": session.fingerprint, "tensors": sha256_of(fresh / "state.safetensors")}
            said = finite(said)
            write_json(fresh / "state.json", said | {"sha256": sha256_of_json(said)})
        self.number += 1
        others = sorted(path for path in self.folder.iterdir() if path != folder)
        for old in others[: max(0, len(others) + 1 - self.config["checkpoint"]["keep"])]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """As the function `newest`, of this run.

        Raises:
            ConfigError: it belongs to other settings or files, or another version wrote it.
        """
        found = newest(self.folder.parent)
        if found is not None:
            check_same(found[1], self.config, self.files)
        return found

    def load(self, folder: Path, found: dict[str, Any], session: SessionState, owners: Mapping[str, Owner]) -> None:
        """Go on from a checkpoint that `newest` gave.

        Raises:
            ConfigError: it was written with other weights under the model's name.
        """
        if found["model"] != session.fingerprint:
            name = self.config["model"]["name_or_path"]
            raise ConfigError(f"resume: the weights of {name} are not those that the run started with")
        try:
            session.load_tensors(load_file(folder / "state.safetensors", device=str(session.editor.solve_device)))
            for name, owner in owners.items():
                owner.load_state_dict(found["state"][name])
            self.number = int(found["number"])
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"resume: {folder} does not fit this run ({type(error).__name__}: {error}); take it away to go on "
                "from the one before"
            ) from error


def newest(run_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest intact checkpoint of a run and what it says, as `intact`."""
    return next(intact(run_dir), None)


def intact(run_dir: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The intact checkpoints of a run and what they say, the newest first; damaged ones are named in the log.

    Raises:
        ConfigError: another version of this program wrote it.
    """
    for folder in sorted((run_dir / "checkpoints").glob("[0-9]*"), reverse=True):
        try:
            found = read_json(folder / "state.json")
            said = {key: value for key, value in found.items() if key != "sha256"}
            ours = found.get("format") == FORMAT
            if ours and (lacking := sorted(PARTS - found.keys())):
                raise ValueError(f"state.json lacks {lacking[0]}")
            if ours and sha256_of_json(said) != found["sha256"]:
                raise ValueError("state.json does not have the sha256 that it names")
            if ours and sha256_of(folder / "state.safetensors") != found["tensors"]:
                raise ValueError("state.safetensors does not have the sha256 that state.json names")
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("checkpoint %s is damaged (%s): the one before it is used", folder, error)
            continue
        if not ours:
            raise ConfigError(
                f"resume: {folder} was written by an earlier version of this program or a later one, which alone can "
                "go on with it; start the run again, or finish it with that version"
            )
        yield folder, found


def check_same(found: dict[str, Any], config: dict[str, Any], files: dict[str, str]) -> None:
    """Refuse to go on with settings or files that would change the numbers; which GPU it is changes none.

    How much is handled at once may change on a GPU, where its memory was not enough: that is rounding there.

    Raises:
        ConfigError: names each key with both values, or the file that changed.
    """
    then, now = flatten(found["config"]), flatten(config)
    free = (*FREE, *SIZES) if _meant(now, "model_device") == "cuda" else FREE
    changed = [
        f"{key} was {then.get(key)}, is {now.get(key)}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and _meant(then, key) != _meant(now, key) and not key.startswith(free)
    ]
    if changed:
        more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise ConfigError(f"resume: these settings would change the numbers: {'; '.join(changed[:SHOWN])}{more}")
    for path, digest in found["files"].items():
        if files.get(path) != digest:
            raise ConfigError(f"resume: {path} is not the file that the run started with: its sha256 changed")


def _meant(config: Mapping[str, Any], key: str) -> Any:
    """What a setting comes to: of a device its kind, of `auto` the number; what auto means now it meant then."""
    value = config.get(key)
    if key in DEVICES and value == AUTO:
        here = "cuda" if torch.cuda.is_available() else "cpu"
        return _meant(config, "model_device") if key == "editor_device" else here
    if key in DEVICES:
        return str(value).partition(":")[0]
    return at_once(key, AUTO, _meant(config, "model_device")) if key in SIZES and value == AUTO else value
