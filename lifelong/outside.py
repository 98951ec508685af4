"""Editors and presets from a folder outside the project: python main.py --config-dir FOLDER editor=NAME ...

FOLDER is laid out as the project is: editor/NAME.py beside editor/NAME.yaml, dataset/NAME.yaml, experiment/NAME.yaml.
Hydra finds the yaml files; what this module adds are the editors' classes and the schemas that their yaml starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from config.check import ConfigError, known_keys
from config.compose import offer_schemas

FLAGS = ("--config-dir", "-cd")


def config_dir(argv: Sequence[str]) -> str | None:
    """What --config-dir names on a command line."""
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        flag, equals, value = word.partition("=")
        if flag in FLAGS:
            return value if equals else following
    return None


def use_editors(argv: Sequence[str]) -> list[str]:
    """Make the editors of --config-dir known; the keys of their schemas, as editor.KEY.

    Raises:
        ConfigError: one of its modules cannot be imported; names it and why.
    """
    folder = Path(config_dir(argv) or "", "editor").absolute()
    if config_dir(argv) is None or not any(folder.glob("*.py")):
        return []
    from editor import registry  # torch loads only where there are editors to look at

    registry.add_folder(folder)
    try:
        kinds = {name: kind.config_class for name, kind in registry.found().items()}
    except Exception as error:
        raise ConfigError(f"--config-dir: an editor in {folder} cannot be imported: {error!r}") from error
    offer_schemas(kinds)
    return [key for kind in kinds.values() for key in known_keys(kind, "editor.")]
