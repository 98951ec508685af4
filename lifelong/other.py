"""Command lines that begin with another run: its keys, unless they are said anew (continue_from, undo)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.check import ConfigError
from config.compose import word
from files import flatten

KEYS = ("continue_from", "undo")
# keys that belong to the other run alone
ONCE = ("resume", "undo", "steps", "model_cache", "model_cache_dir", "inspect", "verbose")
BEFORE = (*ONCE, "continue_from", "export", "num_seq", "dataset.limit", "dataset.valid_path",
          "editor.save_checkpoint", "editor.load_checkpoint")  # fmt: skip
ANY_DATA = ("dataset.prompt_format",)  # kept where another data set is chosen: it belongs to the model
QUIET = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout")  # undo leaves no run directory


def said_anew(argv: Sequence[str]) -> dict[str, str]:
    """What a command line says, by key."""
    pairs = [one.lstrip("+").partition("=") for one in argv if "=" in one and not one.startswith("-")]
    return {key: value for key, _, value in pairs}


def words_of_other(argv: list[str]) -> list[str]:
    """The command line, behind the keys of the run that it continues from or takes steps back of.

    Raises:
        ConfigError: there is nothing that can be gone on with; another group where its keys must stay.
    """
    given = said_anew(argv)
    asked = [key for key in KEYS if given.get(key, "null") != "null"]
    if not asked:
        return argv
    key, folder = asked[0], Path(given[asked[0]])
    if len(asked) > 1:
        raise ConfigError(f"continue_from={given['continue_from']} undo={given['undo']}: one at a time")
    if key == "undo" and {"-m", "--multirun"} & {*argv}:
        raise ConfigError(f"undo={folder}: takes back the steps of one run; leave out -m")
    if "experiment" in given:
        raise ConfigError(f"experiment={given['experiment']}: {key} takes the keys of {folder}; say single keys anew")
    from lifelong import origin  # torch loads only where there is another run

    config = origin.read(folder, key).config
    words = [word(name, value) for name, value in _carried(config, given, BEFORE if key == "continue_from" else ONCE)]
    groups = {"editor": config["editor"]["name"], "dataset": "custom", "model": "base/common"}  # all keys are said
    words = [*(f"{group}={name}" for group, name in groups.items() if group not in given), *words]
    if key == "undo":
        return [*argv, *words, *QUIET]
    if not {"dataset", "dataset.valid_path"} & given.keys():
        raise ConfigError(f"continue_from={folder}: name today's facts by dataset.valid_path=FILE")
    return [*argv, *words, *([] if "num_seq" in given else ["num_seq=null"])]  # flags must come first


def _carried(config: dict[str, Any], given: dict[str, str], left: Sequence[str]) -> list[tuple[str, object]]:
    """The other run's keys and values that this one takes over."""
    same = {group for group in ("editor", "model", "dataset") if given.get(group) == config[group]["name"]}
    anew = {key for key in given if key not in same}
    flat = [(key, value) for key, value in flatten(config).items() if key not in left]
    return [
        (key, value)
        for key, value in flat
        if not any(key == one or key.startswith(f"{one}.") for one in anew) or (key in ANY_DATA and key not in given)
    ]
