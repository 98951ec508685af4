"""Checks of key names and values that need neither data nor model."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Sequence
from typing import get_type_hints

from config.schema import (
    Config,
    DatasetConfig,
    EditorConfig,
    PreheatMode,
    StatisticsMode,
    StatisticsPer,
)

GROUPS = ("dataset", "model", "editor", "experiment")
LEARNED = ("malmen", "mend", "rledit")
RIDGE = ("stableedit", "stableedit_plus", "ultraedit")


class ConfigError(ValueError):
    """A key or value that cannot work; the message says which and what would be right."""


class RunError(RuntimeError):
    """A run that could not go on, or that did not do what it is for; the message says where and why."""


def known_keys(node: type = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema."""
    for name, kind in get_type_hints(node).items():
        yield prefix + name
        if dataclasses.is_dataclass(kind):
            yield from known_keys(kind, f"{prefix}{name}.")


def check_override_names(argv: Sequence[str]) -> None:
    """Refuse overrides of keys that do not exist, with the nearest names.

    Raises:
        ConfigError: a `key=value` whose key is neither in the schema, a group, nor Hydra's own.
    """
    keys = [*known_keys(), *GROUPS]
    for word in argv:
        key, equals, value = word.partition("=")
        key = key.lstrip("+")
        if not equals or key.startswith(("-", "~", "hydra")) or "@" in key or "/" in key:
            continue
        if key not in keys:
            close = difflib.get_close_matches(key, keys, n=3) or sorted(keys)
            raise ConfigError(f"{key}={value}: there is no key {key}; the nearest are {', '.join(close)}")


def check_values(cfg: Config) -> None:
    """Refuse values that cannot work.

    Raises:
        ConfigError: names the key, its value and what would be right.
    """
    if cfg.editor.load_checkpoint in ("false", "False", ""):
        cfg.editor.load_checkpoint = None  # the published program's way to say no
    _check_positive(cfg)
    _check_consistent(cfg)
    check_fields(cfg.dataset)
    if not cfg.dataset.valid_path:
        raise ConfigError("dataset.valid_path=: name the file of facts to edit (.json, .jsonl or .csv)")
    if cfg.editor.name in LEARNED and not cfg.editor.load_checkpoint and cfg.dataset.train_path is None:
        raise ConfigError(
            f"dataset.train_path=null: editor={cfg.editor.name} learns from training records; "
            "name a file of them, or use editor=stableedit"
        )


def _check_positive(cfg: Config) -> None:
    editor = cfg.editor
    whole = {
        "num_seq": cfg.num_seq,
        "dataset.n_edits": cfg.dataset.n_edits,
        "dataset.batch_size": cfg.dataset.batch_size,
        "editor.batch_size": editor.batch_size,
        "eval.tokens_per_batch": cfg.eval.tokens_per_batch,
        "eval.edits": 1 if cfg.eval.edits is None else cfg.eval.edits,
        "eval.max_new_tokens": cfg.eval.max_new_tokens,
        "editor.tokens_per_pass": editor.tokens_per_pass,
        "editor.whitening_every": editor.whitening_every,
    }
    real: dict[str, float | int | None] = {"editor.lr": editor.lr, "editor.whitening_floor": editor.whitening_floor}
    real["model.frozen_cache_gib"] = cfg.model.frozen_cache_gib
    if editor.name in RIDGE:
        real["editor.alpha"] = editor.alpha
    if editor.name in LEARNED:
        names = ["rank", "n_blocks", "meta_lr", "max_grad_norm", "n_epochs"]
        names += ["time_decay", "back_depth"] if editor.name == "rledit" else []
        real |= {f"editor.{name}": getattr(editor, name) for name in names}
    for key, value in (whole | real).items():
        if value is None or not math.isfinite(value) or value <= 0:
            kind = "a whole number above 0" if key in whole else "a finite number above 0"
            raise ConfigError(f"{key}={value}: must be {kind}")
    at_least_zero = {
        "num_seq_zsre": cfg.num_seq_zsre,
        "num_seq_wikibigedit": cfg.num_seq_wikibigedit,
        "downstream_eval_steps": cfg.downstream_eval_steps,
        "seed": cfg.seed,
        "checkpoint.every": cfg.checkpoint.every,
        **{f"eval.{name}": getattr(cfg.eval, name) for name in ("every", "sample", "knowns", "examples")},
        "eval.generate_sample": cfg.eval.generate_sample or 0,
    }
    for key, count in at_least_zero.items():
        if count < 0:
            raise ConfigError(f"{key}={count}: must be a whole number, 0 or more")


def _check_consistent(cfg: Config) -> None:
    editor, sites = cfg.editor, cfg.model.edit_modules
    if not sites:
        raise ConfigError("model.edit_modules=[]: name at least one nn.Linear or Conv1D module to edit")
    twice = sorted({name for name in sites if sites.count(name) > 1})
    if twice:
        raise ConfigError(f"model.edit_modules: {twice[0]} is named twice; name each site once")
    if cfg.model.device_map not in (None, "auto"):
        raise ConfigError(f"model.device_map={cfg.model.device_map}: must be auto or null")
    if cfg.eval.every > cfg.num_seq:
        raise ConfigError(f"eval.every={cfg.eval.every}: must be num_seq={cfg.num_seq} or less, or 0 for never")
    if cfg.model_cache and not cfg.model_cache_dir:
        raise ConfigError("model_cache=true needs model_cache_dir=DIR, the folder to save the edited model to")
    if editor.name == "ultraedit":
        fixed = {"RunningMeanStd_mode": StatisticsMode.original, "preheat_mode": PreheatMode.none}
        for key, value in fixed.items():
            if getattr(editor, key) is not value:
                raise ConfigError(
                    f"editor.{key}={getattr(editor, key).value}: editor=ultraedit means {value.value}; "
                    "use editor=stableedit for anything else"
                )
    _check_statistics(editor)
    if editor.whitening_floor_mode.value == "relative" and editor.whitening_floor >= 1:
        raise ConfigError(
            f"editor.whitening_floor={editor.whitening_floor}: a share of the largest eigenvalue, below 1"
        )


def _check_statistics(editor: EditorConfig) -> None:
    whitens = editor.name in RIDGE and editor.RunningMeanStd_mode is StatisticsMode.stable
    if editor.whiten_keys and not whitens:
        raise ConfigError(
            f"editor.whiten_keys=true: editor={editor.name} with "
            f"editor.RunningMeanStd_mode={editor.RunningMeanStd_mode.value} whitens nothing; "
            "use editor=stableedit with mode stable"
        )
    if not 0 <= editor.key_ridge < 1:
        raise ConfigError(f"editor.key_ridge={editor.key_ridge}: the share of the ridge, 0 or more and below 1")
    if editor.key_ridge and editor.name not in RIDGE:
        raise ConfigError(
            f"editor.key_ridge={editor.key_ridge}: editor={editor.name} learns its ridge; "
            "only stableedit, stableedit_plus and ultraedit have it"
        )
    if editor.statistics_per is StatisticsPer.site and editor.name not in RIDGE:
        raise ConfigError(
            f"editor.statistics_per=site: editor={editor.name} has a network per weight shape and reads shape "
            "statistics; only stableedit, stableedit_plus and ultraedit keep them per site"
        )


def check_fields(dataset: DatasetConfig) -> None:
    """Refuse a field map that cannot be read by.

    Raises:
        ConfigError: names the key, its value and what would be right.
    """
    fields = dataclasses.asdict(dataset.fields)
    for prompt, answer in (("unrelated", "unrelated_answer"), ("mhop", "mhop_answer")):
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


def without_effect(editor: EditorConfig) -> Iterator[str]:
    """Warnings about keys that are set but that the chosen editor does not use."""
    learned_only = ["rank", "n_blocks", "meta_lr", "loc_coef", "max_grad_norm", "n_epochs", "reg_coef"]
    unused = {
        **{name: [*learned_only, "time_decay", "back_depth", "load_checkpoint"] for name in RIDGE},
        "malmen": ["alpha", "time_decay", "back_depth"],
        "mend": ["alpha", "time_decay", "back_depth"],
        "rledit": ["alpha"],
    }
    for key in unused.get(editor.name, []):
        if getattr(editor, key) is not None:
            yield f"editor.{key}={getattr(editor, key)} has no effect on editor={editor.name}"
