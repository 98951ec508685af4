"""Checks of key names and values that need neither data nor model."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from config.choices import AUTO, RANGE
from config.editors import KINDS, AnyEditorConfig, EditorConfig
from config.errors import ConfigError as ConfigError
from config.errors import RunError as RunError
from config.judging import check_judge, check_judge_url
from config.schema import Config, DatasetConfig, WandbMode

GROUPS = ("dataset", "model", "editor", "experiment")
GONE = {
    "model.class_name": "AutoModelForCausalLM finds a model's class by itself; leave the key out",
    "editor.key_ridge": "it left the program with editor=stableedit_plus; use editor=margin",
}
"""Keys of the published program, and of this one once, that there are no more, and why."""
NO_NAME = re.compile(r"null|true|false|[+-]?[\d.]+", re.IGNORECASE)
"""What Hydra takes for something else than the name of a group's member."""
NAMING = ("name", "dir", "project", "text", "resume", "continue_from", "undo", "load_checkpoint", "score", "score_base")
"""How keys end whose values name folders or become part of such a name; who reads records refuses their paths."""
WANDB_PROJECT = re.compile(r"[^/\\#?%:]{,128}")
LONGEST = 255  # bytes of a file's name
MOST = 2**31  # whole numbers stay below it, so that a product of two is still an index


def known_keys(node: type = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, those of every kind of editor among them."""
    for name, kind in get_type_hints(node).items():
        yield prefix + name
        kinds = KINDS.values() if kind is AnyEditorConfig else [kind] if dataclasses.is_dataclass(kind) else []
        for inner in kinds:
            yield from known_keys(inner, f"{prefix}{name}.")  # type: ignore[arg-type]


def check_override_names(argv: Sequence[str], more: Sequence[str] = ()) -> None:
    """Refuse overrides of keys that do not exist, with the nearest names; `more` are keys of editors from outside.

    Raises:
        ConfigError: a `key=value` whose key is neither in the schema, a group, nor Hydra's own.
    """
    keys = list(dict.fromkeys([*known_keys(), *GROUPS, *more]))
    for word in argv:
        key, equals, value = word.partition("=")
        key = key.lstrip("+")
        if not equals or key.startswith(("-", "~", "hydra")) or "@" in key:
            continue
        if "/" in key and key.partition("/")[0] in (*GROUPS, "schema"):
            continue
        if key in GONE:
            raise ConfigError(f"{key}={value}: there is no key {key}: {GONE[key]}")
        if key == "editor" and "stableedit_plus" in value.split(","):
            raise ConfigError(f"{key}={value}: stableedit_plus left the program: use editor=margin")
        if key not in keys:
            close = difflib.get_close_matches(key, keys, n=3) or sorted(keys)
            raise ConfigError(f"{key}={value}: there is no key {key}; the nearest are {', '.join(close)}")
        if key in GROUPS and any(map(NO_NAME.fullmatch, re.split(r"[][,\s]+", value))):
            raise ConfigError(f"{key}={value}: must be the name of a file of config/{key}, without .yaml")
        _check_name(key, value)
        if key == "eval.judge_url" and any(sign in value for sign in "@?#"):  # before Hydra writes a secret down
            check_judge_url(value)


def _check_name(key: str, value: str) -> None:
    """Refuse a name that no file system takes, and one in a home that nobody has."""
    longest = max(len(part.encode(errors="surrogateescape")) for part in value.split("/"))
    if key.endswith(NAMING) and longest > LONGEST:
        raise ConfigError(f"{key}={value[:40]}...: a name of {longest} bytes; file systems take {LONGEST} at most")
    if key.endswith((*NAMING, "name_or_path")) and value.startswith("~"):
        try:
            Path(value).expanduser()
        except RuntimeError as error:
            raise ConfigError(f"{key}={value}: nobody has this home ({error}); name the whole path") from error


def check_values(cfg: Config) -> None:
    """Refuse values that cannot work.

    Raises:
        ConfigError: names the key, its value and what would be right.
    """
    if isinstance(cfg.editor, EditorConfig) and cfg.editor.load_checkpoint in ("false", "False", ""):
        cfg.editor.load_checkpoint = None  # the published program's way to say no
    check_numbers(cfg)
    if not cfg.model.edit_modules and cfg.score is None:
        raise ConfigError("model.edit_modules=[]: name at least one nn.Linear or Conv1D module to edit")
    if cfg.model.device_map not in (None, "auto"):
        raise ConfigError(f"model.device_map={cfg.model.device_map}: must be auto or null")
    check_every(cfg)
    if cfg.model_cache and not cfg.model_cache_dir:
        raise ConfigError("model_cache=true needs model_cache_dir=DIR, the folder to save the edited model to")
    if cfg.wandb.mode is not WandbMode.disabled and not WANDB_PROJECT.fullmatch(cfg.wandb.project):
        raise ConfigError(f"wandb.project={cfg.wandb.project}: must be up to 128 characters, none of / \\ # ? % :")
    check_fields(cfg.dataset)
    check_judge(cfg.eval)
    if not cfg.dataset.valid_path:
        raise ConfigError("dataset.valid_path=: name the file of facts to edit (.json, .jsonl or .csv)")


def check_every(cfg: Config) -> None:
    """Refuse to measure more seldom than a run has steps, once their number is known.

    Raises:
        ConfigError: names both keys.
    """
    if cfg.num_seq is not None and cfg.eval.every > cfg.num_seq:
        raise ConfigError(f"eval.every={cfg.eval.every}: must be num_seq={cfg.num_seq} or less, or 0 for never")


def check_numbers(node: Any, prefix: str = "") -> None:
    """Refuse numbers outside the range that their field of the schema names, or not finite; and names too long.

    Raises:
        ConfigError: names the key, its value and what would be right.
    """
    for field in dataclasses.fields(node):
        key, value = prefix + field.name, getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_numbers(value, f"{key}.")
        elif field.metadata.get(RANGE, "").endswith(AUTO):
            if value != AUTO and not (type(value) is int and 0 < value < MOST):
                raise ConfigError(f"{key}={value}: must be a whole number {field.metadata[RANGE]}")
        elif isinstance(value, str):
            _check_name(key, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            wanted, whole = field.metadata.get(RANGE, ""), "int" in str(field.type)
            low = value > 0 if "above 0" in wanted else value >= 0 if wanted else True
            high = value < MOST if whole else math.isfinite(value)
            if not low or not high:
                kind = "a whole number" if whole else "a finite number"
                join = " " if wanted.startswith("above") else ", " if wanted else ""
                most = f" and below {MOST:,}" if whole and not high else ""
                raise ConfigError(f"{key}={value}: must be {kind}{join}{wanted}{most}")


def check_fields(dataset: DatasetConfig) -> None:
    """Refuse a field map that cannot be read by.

    Raises:
        ConfigError: names the key, its value and what would be right.
    """
    fields = dataclasses.asdict(dataset.fields)
    for prompt, answer in [(key, f"{key}_answer") for key in ("unrelated", "mhop", "neighbour")]:
        if (fields[prompt] is None) != (fields[answer] is None):
            raise ConfigError(
                f"dataset.fields.{prompt}={fields[prompt]} dataset.fields.{answer}={fields[answer]}: "
                f"the {prompt} prompt needs its answer; name both or set both to null"
            )
    for key in dataset.required:
        if key not in fields:
            raise ConfigError(f"dataset.required: there is no {key}; it must be some of {', '.join(fields)}")
        if fields[key] is None:
            raise ConfigError(
                f"dataset.fields.{key}=null: dataset.required says that no record lacks it; "
                f"name the field, or take {key} out of dataset.required"
            )
    missing = dataset.missing_mhop
    if missing is not None and (fields["mhop"] is None or not missing.strip()):
        right = "must be a word to ask" if fields["mhop"] else "needs dataset.fields.mhop, which is null"
        raise ConfigError(f"dataset.missing_mhop={missing}: {right}; null for none")
