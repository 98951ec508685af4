"""The project's own configuration from Python: what the command line composes, as plain typed objects."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError, InterpolationValidationError, OmegaConfBaseException
from yaml import YAMLError

from config.editors import AnyEditorConfig
from config.errors import ConfigError
from config.schema import Config, DatasetConfig, register
from config.sites import quoted
from files import printable

FOLDER = Path(__file__).resolve().parent
REFUSED = (ConfigError, HydraException, OmegaConfBaseException, YAMLError)


def compose_config(words: Sequence[str]) -> Config:
    """The resolved configuration of `main.py WORDS`.

    Raises:
        hydra.errors.ConfigCompositionException, omegaconf.errors.OmegaConfBaseException: as on the command line.
    """
    register()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return cast(Config, OmegaConf.to_object(compose("config", overrides=[quoted(one) for one in words])))


def typed_config(content: Mapping[str, Any], editor: type[AnyEditorConfig]) -> Config:
    """A resolved configuration as it stands in results.json, as typed objects; `editor` is its editor's schema.

    Raises:
        omegaconf.errors.OmegaConfBaseException: an unknown key, a value of another type.
    """
    node = OmegaConf.structured(Config)
    node.editor = OmegaConf.structured(editor)
    return cast(Config, OmegaConf.to_object(OmegaConf.merge(node, dict(content))))


def dataset_config(name: str, folder: Path | None = None, more: Sequence[str] = ()) -> DatasetConfig:
    """The data set that config/dataset/NAME.yaml describes, or FOLDER/dataset/NAME.yaml, changed by words of a run.

    Raises:
        ConfigError: there is no such file; a key or a value in it is wrong.
    """
    folders = [FOLDER] if folder is None else [FOLDER, folder.absolute()]
    names = sorted({path.stem for place in folders for path in (place / "dataset").glob("*.yaml")})
    if name not in names:
        raise ConfigError(f"data set {name}: must be one of {', '.join(names)}")
    words = [f"hydra.searchpath=['file://{_quoted(folders[-1])}']"] if folder else []
    try:
        return compose_config([f"dataset='{_quoted(name)}'", *words, *more]).dataset
    except REFUSED as error:
        raise ConfigError(f"data set {name}: {said(error)}") from error


@contextmanager
def one_line(*expected: type[Exception]) -> Iterator[None]:
    """Around what a command does: a configuration that is refused, and errors that are expected, end it in one line.

    An OSError that is not expected comes from Hydra, which makes the run directory.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints what it refuses in its own way, and exits
    errors: tuple[type[Exception], ...] = (*REFUSED, *expected)
    try:
        yield
    except errors as error:
        sys.exit(f"error: {said(error)}")
    except (OSError, ValueError) as error:  # the latter of a log file
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        key = "hydra.sweep.dir" if {"-m", "--multirun"} & {*sys.argv} else "hydra.run.dir"
        sys.exit(f"error: {key}: cannot be made ({said(cause)}); name another folder")


def said(error: Exception) -> str:
    """An error in one line; of OmegaConf's with the key, or the words on the command line that refer to others."""
    texts = [str(error), str(error.__cause__ or "") if isinstance(error, HydraException) else ""]
    texts = [text.partition("\n    full_key:")[0].partition("\nConfig search path")[0] for text in texts if text]
    key = getattr(error, "full_key", None) or getattr(error, "override", None)
    if isinstance(error, InterpolationResolutionError | InterpolationValidationError) or "${" in texts[0]:
        key = " ".join(word for word in sys.argv[1:] if "${" in word and not word.startswith("hydra.")) or key
    return printable(" ".join(": ".join([key, *texts] if key else texts).split()))


def word(key: str, value: object) -> str:
    """`key=value` as Hydra's command line writes it: null, numbers, true, texts between quotes, lists of these."""
    return f"{key}={_written(value)}"


def _written(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, int | float) else f"'{_quoted(value)}'"


def _quoted(word: object) -> str:
    """A word as Hydra reads it between single quotes."""
    return str(word).replace("\\", "\\\\").replace("'", "\\'")
