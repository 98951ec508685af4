"""Editors that the schema does not know: from a folder outside the project, or new in config/editor.

    python main.py --config-dir FOLDER editor=NAME ...

FOLDER is laid out as the project is: editor/NAME.py beside editor/NAME.yaml, dataset/NAME.yaml, experiment/NAME.yaml.
Hydra finds the yaml files; what this module adds are the editors' classes and the schemas that their yaml starts from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from config.check import ConfigError, known_keys
from config.compose import FOLDER
from config.editors import KINDS
from config.schema import register

FLAGS = ("--config-dir", "-cd")
SCHEMA = re.compile(r"/schema/([\w-]+)@_here_")


def config_dir(argv: Sequence[str]) -> str | None:
    """What --config-dir names on a command line."""
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        flag, equals, value = word.partition("=")
        if flag in FLAGS:
            return value if equals else following
    return None


def use_editors(argv: Sequence[str]) -> list[str]:
    """Make editors known that only their own module knows; the keys of their schemas, as editor.KEY.

    Raises:
        ConfigError: one of the modules cannot be imported; names the folder and why.
    """
    given = config_dir(argv)
    outside = Path(given, "editor").absolute() if given else None
    found = [SCHEMA.findall(path.read_text(encoding="utf-8")) for path in (FOLDER / "editor").glob("*.yaml")]
    if not any(outside.glob("*.py") if outside else ()) and KINDS.keys() >= {name for names in found for name in names}:
        return []
    from editor import registry  # torch loads only where there are editors to look at

    if outside:
        registry.add_folder(outside)
    try:
        kinds = {name: kind.config_class for name, kind in registry.found().items()}
    except Exception as error:
        raise ConfigError(f"--config-dir: an editor in {outside} cannot be imported: {error!r}") from error
    register(kinds)
    return [key for kind in kinds.values() for key in known_keys(kind, "editor.")]
