"""The editors by name. A module of this package that registers a class is found without being listed anywhere."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from config.check import ConfigError
from config.editors import AnyEditorConfig

if TYPE_CHECKING:
    from editor.base import AnyEditor

FOLDERS = "LIFELONG_EDITORS"
"""Environment variable: further folders with editors, so that the processes of a sweep find them too."""
EDITORS: dict[str, type[AnyEditor]] = {}

Class = TypeVar("Class", bound="type[AnyEditor]")


def register(name: str, config: type[AnyEditorConfig] = AnyEditorConfig) -> Callable[[Class], Class]:
    """Make a class an editor: editor.name=NAME chooses it, `config` is the typed schema of its keys."""

    def put(kind: Class) -> Class:
        kind.config_class = config
        EDITORS[name] = kind
        return kind

    return put


def add_folder(folder: Path) -> None:
    """Let the modules of a folder outside the project be editors too, in this process and those it starts."""
    known = os.environ.get(FOLDERS, "").split(os.pathsep)
    if str(folder) not in known:
        os.environ[FOLDERS] = os.pathsep.join(filter(None, [*known, str(folder)]))


def extend_path() -> None:
    """Let Python find the modules of added folders as modules of this package."""
    path = sys.modules["editor"].__path__
    path += [folder for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder and folder not in path]


def found() -> dict[str, type[AnyEditor]]:
    """Every registered editor by name, once all modules of this package and of added folders are imported."""
    extend_path()
    for module in pkgutil.iter_modules(sys.modules["editor"].__path__):
        importlib.import_module(f"editor.{module.name}")
    return EDITORS


def editor_class(name: str) -> type[AnyEditor]:
    """The class of an editor.

    Raises:
        ConfigError: no module registers that name; names those that are.
    """
    kinds = found()
    if name not in kinds:
        raise ConfigError(f"editor.name={name}: there is no such editor; there are {', '.join(sorted(kinds))}")
    return kinds[name]
