"""A state that a run or a session left: found, checked, kept by the run that starts from it, put into a session."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from config.check import ConfigError
from config.schema import Config
from config.sites import fold_sites
from files import finite, flatten, read_json, sha256_of, sha256_of_json, whole_folder, write_json
from lifelong import saved_sessions
from lifelong.earlier import Written, facts_of_run
from lifelong.resume import newest
from lifelong.session_state import SessionState
from model import model_skeleton, pick_dtype, resolve_device, tokenizer_sha256

log = logging.getLogger(__name__)

START, STATE = "start", "state.safetensors"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
# keys that the statistics, networks and weights of a state belong to
BOUND = ("editor.name", "editor.token", "editor.RunningMeanStd_mode", "editor.float32_masters", "editor.rank",
         "editor.n_blocks", "editor.text", "editor.text_weight", "editor.threshold",
         "model.name_or_path", "model.edit_modules")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """A state, where it is from, and what it belongs to."""

    folder: str
    config: dict[str, Any]
    weights: str
    """The fingerprint of the model that the state goes into."""
    tokenizer: str | None
    tensors: Path
    sha256: str
    state: dict[str, Any]
    """What is no tensor."""
    written: list[Written]
    """What was written so far, by run."""

    def sampled(self, size: int, seed: int) -> Origin:
        """The same with at most `size` facts of each run."""
        return replace(self, written=[one.sample(size, seed) for one in self.written])

    def check_keys(self, config: Mapping[str, Any]) -> None:
        """Refuse a configuration, in JSON's types, that the statistics do not belong to.

        Raises:
            ConfigError: names the key with both values.
        """
        said, then, now = f"continue_from={self.folder}", flatten(self.config), flatten(config)
        for key in BOUND:
            if (one := then.get(key)) != (other := now.get(key)):
                was, is_now = (", ".join(fold_sites(x)) if isinstance(x, list) else x for x in (one, other))
                raise ConfigError(f"{said}: its statistics belong to {key}={was}, not {is_now}; leave the key out")

    def check_model(self, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a model, by its modules alone, that the statistics do not belong to.

        Raises:
            ConfigError: names what differs.
        """
        said = f"continue_from={self.folder}"
        if self.tokenizer not in (None, tokenizer_sha256(tokenizer)):
            raise ConfigError(f"{said}: its statistics belong to another tokenizer than {cfg.model.name_or_path} has")
        modules = dict(model_skeleton(cfg.model).named_modules())
        dtype = pick_dtype(cfg.model, resolve_device("model_device", cfg.model_device))
        with safe_open(self.tensors, "pt") as file:
            for name in cfg.model.edit_modules:
                found, shape = file.get_slice(f"weight/{name}"), list(modules[name].weight.shape)
                if found.get_shape() != shape:
                    raise ConfigError(f"{said}: {name} is {found.get_shape()} there, {shape} in this model")
                if DTYPES.get(found.get_dtype()) is not dtype:
                    raise ConfigError(f"{said}: its weights are {found.get_dtype()}, not {dtype}; see model.precision")

    def put_into(self, session: SessionState) -> None:
        """Make a session on the untouched model go on from the state.

        Raises:
            ConfigError: the model has other weights; the state is damaged or of another kind.
        """
        said = self.folder
        if session.fingerprint != self.weights:
            raise ConfigError(f"{said}: the weights of {session.cfg.model.name_or_path} are not those it started with")
        try:
            session.load_tensors(load_file(self.tensors, device=str(session.editor.solve_device)))
            session.load_state_dict(self.state)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(f"{said}: does not fit this run ({type(error).__name__}: {error})") from error
        session.trained, session.earlier = True, list(self.written)

    def begin(self, session: SessionState, run_dir: Path) -> None:
        """Make a run's session start from the state, of which the run keeps a copy.

        Raises:
            ConfigError: as keep and put_into.
        """
        kept = self.keep(run_dir)
        kept.put_into(session)
        session.fingerprint = sha256_of_json([self.weights, self.sha256])  # no fresh model's, and no other state's
        log.info("continues from %s", self.folder)

    def keep(self, run_dir: Path) -> Origin:
        """The same, copied into the run that starts from it, unless it is there already.

        Raises:
            ConfigError: the state was changed while it was copied.
            OSError: it cannot be written.
        """
        folder = run_dir / START
        if self.tensors.parent == folder:
            return self
        with whole_folder(folder) as fresh:
            shutil.copyfile(self.tensors, fresh / STATE)
            if sha256_of(fresh / STATE) != self.sha256:
                raise ConfigError(f"continue_from={self.folder}: changed while it was read; is a run at work there?")
            said = finite(asdict(replace(self, tensors=Path())) | {"tensors": None})
            write_json(fresh / "start.json", said | {"digest": sha256_of_json(said)})
        return replace(self, tensors=folder / STATE)


def kept(run_dir: Path) -> Origin | None:
    """What `keep` left in a run's directory; None where there is nothing.

    Raises:
        ConfigError: it is damaged.
    """
    folder = run_dir / START
    if not folder.is_dir():
        return None
    try:
        said = read_json(folder / "start.json")
        digest = said.pop("digest")
        written = [Written(**one) for one in said["written"]]
        found = Origin(**(said | {"tensors": folder / STATE, "written": written}))
        if sha256_of_json(said) != digest or sha256_of(found.tensors) != found.sha256:
            raise ValueError("not the sha256 that it names")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder}: is damaged ({error}); the run that starts from it cannot go on") from error
    return found


def read_once(cfg: Config, config: Mapping[str, Any], run_dir: Path) -> Origin:
    """What a run that continues starts from: the other's newest state, or on resume the copy that the run kept.

    `config` is the run's configuration `cfg` in JSON's types.

    Raises:
        ConfigError: as read, kept and check_keys.
    """
    here = kept(run_dir) if cfg.resume else None
    found = here or read(Path(str(cfg.continue_from))).sampled(cfg.eval.sample, cfg.seed)
    found.check_keys(config)
    return found


def read(folder: Path, key: str = "continue_from") -> Origin:
    """The newest state in a run directory, or in a folder that Session.save wrote; `key` named it.

    Raises:
        ConfigError: there is none that is whole, or a learned editor's training is not done.
    """
    folder = folder.expanduser().absolute()
    if os.path.exists(folder / saved_sessions.INSIDE):  # unlike Path.exists it takes any name
        return of_session(folder)
    if not os.path.isdir(folder / "checkpoints"):
        raise ConfigError(f"{key}={folder}: is neither a run directory with checkpoints nor a folder of Session.save")
    try:
        found = newest(folder)
    except ConfigError as error:
        raise ConfigError(f"{key}: {str(error).removeprefix('resume: ')}") from error
    if found is None:
        raise ConfigError(f"{key}={folder}: none of its checkpoints is intact (checkpoint.every=0 keeps none)")
    return of_checkpoint(folder, *found, key)


def trained(said: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's editor has learned all it learns."""
    return bool(said["state"].get("training", {"done": True})["done"])


def of_checkpoint(folder: Path, path: Path, said: dict[str, Any], key: str) -> Origin:
    """The state in one of a run's checkpoints, as intact gave it.

    Raises:
        ConfigError: its training is not done, or what it started from is damaged.
    """
    state, config = said["state"], said["config"]
    if not trained(said):
        raise ConfigError(f"{key}={folder}: its training is not done; go on by resume={folder} first")
    start = kept(folder) if config.get("continue_from") else None
    before = start.written if start else []
    edits, n_edits = state["loop"]["edits"], config["dataset"]["n_edits"]
    facts = list(facts_of_run(folder, said, sum(one.edits for one in before)).values())
    own = Written(str(folder), edits, -(-edits // n_edits), facts)
    return Origin(
        str(folder), config, start.weights if start else said["model"], said["files"].get("tokenizer"), path / STATE,
        said["tensors"], state["session"], [*before, own],
    )  # fmt: skip


def of_session(folder: Path) -> Origin:
    """The state in a folder that Session.save wrote.

    Raises:
        ConfigError: it is not whole, or a learned editor was not trained.
    """
    said = saved_sessions.read(folder, "auto").said
    if not said["trained"]:
        raise ConfigError(f"continue_from={folder}: its networks were not trained; session.train(facts) does it")
    steps = [step for step in said["steps"] if not step["warm_up"]]
    facts = [list(fact) for step in steps for fact in zip(step["prompts"], step.get("answers", []), strict=False)]
    own = Written(str(folder), sum(len(step["prompts"]) for step in steps), len(steps), facts)
    written = [*(Written(**one) for one in said["earlier"]), own]
    config = said["config"] | {"model": said["config"]["model"] | {"name_or_path": str(folder)}}
    tensors, digest = folder / saved_sessions.INSIDE / STATE, said["files"][STATE]
    weights, tokenizer = said["weights"], said.get("tokenizer")
    return Origin(str(folder), config, weights, tokenizer, tensors, digest, said["state"], written)
