"""Sessions as folders: the model as transformers has it, and under session/ what the next step needs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import load_file, save_file

from config.check import ConfigError, check_override_names
from config.compose import FOLDER, compose_config, typed_config, word
from config.schema import Config
from editor.registry import editor_class
from exports.folders import check_save_folder
from files import finite, read_json, sha256_of, sha256_of_json, whole_folder, write_json
from lifelong.earlier import Written
from lifelong.ledger import step_of
from lifelong.session_state import SessionState
from model import EMBEDDED_PREFIX, fingerprint, tokenizer_sha256

FORMAT = 1
INSIDE = "session"
KINDS: dict[str, type | tuple[type, ...]] = {
    "config": dict, "state": dict, "files": dict, "steps": list, "earlier": list, "trained": bool, "weights": str,
    "base": str, "tokenizer": str, "undo_gib": (int, float),
}  # fmt: skip
"""What session.json holds."""


def config_of(model: str, editor: str, given: Mapping[str, object]) -> Config:
    """The configuration of a session: the editor's and the model's presets, and what was given by dotted key.

    Raises:
        ConfigError: an unknown key, a value of another type.
    """
    preset = model.removeprefix(EMBEDDED_PREFIX)
    words = ["dataset=custom", word("dataset.valid_path", "facts from Python"), f"editor={editor}"]
    if (FOLDER / "model" / f"{preset}.yaml").is_file():
        words.append(f"model={preset}")
    else:
        words += ["model=base/common", word("model.name", Path(model).name), word("model.name_or_path", model)]
        if "model.edit_modules" not in given:
            raise ConfigError("sites=None: name the modules to edit, as sites='model.layers.{18-27}.mlp.down_proj'")
    words += [word(key, value) for key, value in given.items()]
    check_override_names(words)
    try:
        return compose_config(words)
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"{getattr(cause, 'full_key', None) or 'editor'}: {str(cause).splitlines()[0]}") from error


def write(session: SessionState, folder: Path) -> Path:
    """Save a session; returns the folder."""
    check_save_folder(folder, "folder")
    with whole_folder(folder) as fresh:
        session.model.save_pretrained(fresh)
        session.tokenizer.save_pretrained(fresh)
        inside = fresh / INSIDE
        inside.mkdir()
        save_file(session.tensors(), inside / "state.safetensors")
        steps = session.ledger.save(inside / "ledger")
        config = OmegaConf.to_container(OmegaConf.structured(session.cfg), enum_to_str=True)
        said = {"format": FORMAT, "config": config, "base": session.fingerprint, "trained": session.trained}
        said |= {"state": session.state_dict(), "weights": _identity(session), "steps": steps}
        said |= {"undo_gib": session.ledger.gib, "earlier": [asdict(one) for one in session.earlier]}
        said |= {"tokenizer": tokenizer_sha256(session.tokenizer)}
        said["files"] = {
            str(path.relative_to(inside)): sha256_of(path) for path in sorted(inside.rglob("*.safetensors"))
        }
        said = finite(said)
        write_json(inside / "session.json", said | {"sha256": sha256_of_json(said)})
    return folder


def _identity(session: SessionState) -> str:
    return sha256_of_json("", fingerprint(session.model.state_dict().items()))


@dataclass(frozen=True, slots=True)
class Saved:
    """A session that was saved: its configuration, with the folder as the model, and what it says of itself."""

    cfg: Config
    folder: Path
    said: dict[str, Any]

    def restore(self, session: SessionState) -> None:
        """Make a session on the folder's model go on with what was saved.

        Raises:
            ConfigError: the folder's weights are not those that were saved.
        """
        if _identity(session) != self.said["weights"]:
            raise ConfigError(f"{self.folder}: its weights are not those that were saved with session/")
        inside, device = self.folder / INSIDE, session.editor.solve_device
        session.load_tensors(load_file(inside / "state.safetensors", device=str(device)))
        session.load_state_dict(self.said["state"])
        session.ledger.gib = self.said["undo_gib"]
        session.ledger.load(inside / "ledger", self.said["steps"], device)
        session.fingerprint, session.trained = self.said["base"], self.said["trained"]
        session.earlier = [Written(**one) for one in self.said["earlier"]]


def read(folder: Path, device: str) -> Saved:
    """What a folder says of the session in it.

    Raises:
        ConfigError: there is none, another version wrote it, or one of its files was changed.
    """
    inside = folder / INSIDE
    try:
        said = read_json(inside / "session.json")
        if said["format"] != FORMAT:
            raise ConfigError(f"{folder}: its session has format {said['format']}; this program reads {FORMAT}")
        if said.pop("sha256") != sha256_of_json(said):
            raise ConfigError(f"{folder}: {INSIDE}/session.json is not the file that was saved: its sha256 changed")
        _check_kinds(said)
        for name, digest in said["files"].items():
            if sha256_of(inside / name) != digest:
                raise ConfigError(f"{folder}: {INSIDE}/{name} is not the file that was saved: its sha256 changed")
        config = said["config"]
        cfg = typed_config(config, editor_class(config["editor"]["name"]).config_class)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{folder}: holds no session that can be gone on with ({error}); name a folder that session.save wrote"
        ) from error
    return Saved(replace(cfg, model=replace(cfg.model, name_or_path=str(folder)), model_device=device), folder, said)


def _check_kinds(said: Mapping[str, Any]) -> None:
    """Refuse, by a TypeError or KeyError, a session.json whose parts are of another kind than `write` gives them."""
    for name, kind in KINDS.items():
        if not isinstance(said[name], kind):
            raise TypeError(f"its {name} is {said[name]!r}")
    for content in said["steps"]:
        step_of(content)
    for content in said["earlier"]:
        Written(**content)
    said["files"]["state.safetensors"]
