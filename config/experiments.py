"""Which keys of an experiment apply to an editor that it was not made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose
from omegaconf import OmegaConf

from files import flatten


def editor_keys(choices: Mapping[str, str | None], words: Sequence[str]) -> str:
    """What an experiment sets for an editor that the command line names beside it, in a line; "" where it names none.

    `choices` are the groups' choices and `words` the overrides of the task that runs.
    """
    names = [word.lstrip("+").partition("=")[0] for word in words]
    if not choices.get("experiment") or "editor" not in names:
        return ""
    rest = [word for word, name in zip(words, names, strict=True) if name not in ("experiment", "dataset", "model")]
    chosen = [f"{group}={choices[group]}" for group in ("dataset", "model")]
    told, plain = (_editor([*chosen, *more, *rest]) for more in ([f"experiment={choices['experiment']}"], []))
    found = [f"editor.{key}={value}" for key, value in sorted(told.items()) if value != plain.get(key)]
    start = f"experiment={choices['experiment']} sets for editor={choices['editor']}"
    return f"{start}: {', '.join(found) or 'nothing'}"


def _editor(words: Sequence[str]) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(compose("config", overrides=list(words)).editor, enum_to_str=True)
    return flatten(found)
