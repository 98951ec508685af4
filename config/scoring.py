"""What score=MODEL makes of a command line and of its configuration: no editor, no site, a directory of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from config.editors import AnyEditorConfig
from config.errors import ConfigError
from config.schema import CheckpointConfig, Config

CHANGES = ("model_cache", "model_cache_dir", "continue_from", "undo", "tune")  # keys of what changes or saves a model
UNUSED = re.compile(r"editor|editor\..*|model\.(edit_modules|name|name_or_path|frozen_.*)|num_seq_\w+|checkpoint\..*")
LONGEST = 80  # characters of a model's name in a folder's name


def unused(words: Sequence[str]) -> list[str]:
    """The keys on a command line that mean nothing to a scoring."""
    keys = [word.partition("=")[0].lstrip("+") for word in words]
    return [key for key in keys if UNUSED.fullmatch(key)]


def with_run_dir(argv: list[str]) -> list[str]:
    """The words of a command line with the run directory of a scoring, where one is asked for and none is named."""
    asked = [word.removeprefix("score=").strip("'\"") for word in argv if word.startswith("score=")]
    named = any(word in ("-m", "--multirun") or word.startswith("hydra.run.dir=") for word in argv)
    if named or not asked or asked[-1] in ("", "null"):
        return argv
    return [
        *argv,
        f"hydra.run.dir=outputs/${{dataset.name}}_{model_name(asked[-1])}_score/${{now:%Y-%m-%d_%H-%M-%S-%f}}",
    ]


def model_name(model: str) -> str:
    """What reports and folders call a model: the last part of its name."""
    return re.sub(r"[^\w.-]+", "_", Path(model).absolute().name.rpartition(":")[2])[:LONGEST]


def scoring_config(cfg: Config) -> Config:
    """The configuration of a scoring, of which no editor and no site is part; any other as it is.

    Raises:
        ConfigError: keys that do not go together with score.
    """
    if cfg.score is None:
        if cfg.score_base is not None:
            raise ConfigError(f"score_base={cfg.score_base}: needs score=MODEL, the model to compare with it")
        return cfg
    if not cfg.score or cfg.score_base == "":
        raise ConfigError(f"score={cfg.score} score_base={cfg.score_base}: name a model; null for none")
    for key in CHANGES:
        if value := getattr(cfg, key, None):
            shown = str(value).lower() if isinstance(value, bool) else value
            raise ConfigError(f"{key}={shown}: score={cfg.score} neither changes nor saves a model; leave {key} out")
    if cfg.resume:
        _check_resumed(cfg.resume, cfg.score)
    return replace(
        cfg,
        model=replace(
            cfg.model, name=model_name(cfg.score), name_or_path=cfg.score, edit_modules=[], frozen_cache_dir=None
        ),
        editor=AnyEditorConfig(name="none"),
        eval=replace(cfg.eval, before=cfg.score_base is not None, every=0),
        checkpoint=CheckpointConfig(every=0),
    )


def _check_resumed(folder: str, model: str) -> None:
    """Refuse to score in the directory of a run that edits."""
    path = Path(folder).expanduser() / ".hydra" / "overrides.yaml"
    try:
        words = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (OSError, ValueError, yaml.YAMLError):
        words = []
    if not any(str(word).startswith("score=") for word in words):
        raise ConfigError(
            f"resume={folder}: holds no scoring; leave resume out and score={model} takes a new directory"
        )
