"""What a search found as an experiment file: the words of its command line as yaml, with what was found in them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from config.check import GROUPS
from files import write_whole

NAME = "tuned"
DROPPED = ("tune", "hydra", "inspect")
"""How the keys start that belong to the search alone."""


def write_preset(run_dir: Path, words: Sequence[str], found: Mapping[str, Any], comment: str) -> dict[str, str]:
    """Write RUN_DIR/tuned/experiment/tuned.yaml; its path and the command that uses it, as preset and use."""
    folder = run_dir / NAME  # of its own: Hydra takes every folder beside experiment/ for a group of keys
    path = folder / "experiment" / f"{NAME}.yaml"
    write_whole(path, preset(words, found, comment))
    use = ["python", "main.py", "--config-dir", str(folder), f"experiment={NAME}"]
    return {"preset": str(path), "use": shlex.join(use)}


def preset(words: Sequence[str], found: Mapping[str, Any], comment: str) -> str:
    """The text of an experiment that composes what the words do, with `found` (values by dotted key) in it."""
    parents: list[Any] = []
    choices: list[Any] = []
    values: dict[str, Any] = {}
    for word in OverridesParser.create().parse_overrides(list(words)):
        key = word.key_or_group
        if key == "experiment":
            parents += [] if word.value() is None else [word.value()]
        elif key in GROUPS:
            choices.append({f"override /{key}": word.value()})
        elif not key.startswith(DROPPED) and not word.is_delete():
            values[key] = word.value()
    content: dict[str, Any] = {}
    for key, value in (values | dict(found)).items():
        node, (*above, last) = content, key.split(".")
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    head = yaml.safe_dump({"defaults": [*parents, *choices, "_self_"]}, sort_keys=False)
    return f"# @package _global_\n# {comment}\n{head}\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
