"""Saving what a run made of a model: whole or as changed weights, always with its card."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError
from config.schema import Config, Export
from exports.card import model_card, origin
from exports.delta import save_delta
from model import check_save_folder, save_model


def check_export(cfg: Config) -> None:
    """Refuse a model_cache_dir that cannot take what export would save there; needs no model.

    Raises:
        ConfigError: the folder holds something else, or is the base that a delta could not do without.
    """
    folder = cfg.model_cache_dir or ""
    check_save_folder(folder)
    parent = next(path for path in Path(folder).expanduser().absolute().parents if path.exists())
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise ConfigError(f"model_cache_dir={folder}: cannot be made ({error}); name another folder") from error
    if cfg.export is Export.delta and origin(folder) == origin(cfg.model.name_or_path):
        raise ConfigError(
            f"model_cache_dir={folder}: is the model that is edited, and export=delta would replace it by the "
            "changed weights alone; name another folder"
        )


def save_edited(
    cfg: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    identity: dict[str, Any],
    results: dict[str, Any],
) -> Path:
    """Save the edited model in model_cache_dir as `export` asks, with its card; returns the absolute folder.

    `identity` is base_identity(model, cfg.model.edit_modules) before the first edit; `results` as for model_card.
    """
    folder = cfg.model_cache_dir or ""
    card = model_card(results, identity, delta=cfg.export is Export.delta)
    if cfg.export is Export.delta:
        return save_delta(model, origin(cfg.model.name_or_path), identity, folder, card)
    return save_model(model, tokenizer, folder, card)
