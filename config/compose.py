"""The project's own configuration from Python: what the command line composes, as plain typed objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from config.schema import Config, register

FOLDER = Path(__file__).resolve().parent


def compose_config(words: Sequence[str]) -> Config:
    """The resolved configuration of `main.py WORDS`.

    Raises:
        hydra.errors.ConfigCompositionException, omegaconf.errors.OmegaConfBaseException: as on the command line.
    """
    register()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return cast(Config, OmegaConf.to_object(compose("config", overrides=list(words))))
