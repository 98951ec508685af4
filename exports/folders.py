"""Folders that models are saved to, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.check import ConfigError
from files import whole_folder
from model import CARD, DELTA_FILE


def check_save_folder(folder: str | Path, key: str = "model_cache_dir") -> None:
    """Refuse a folder to save to that holds something other than a saved model or delta; `key` named it.

    Raises:
        ConfigError: the folder exists, is not empty and has neither config.json nor delta.json.
    """
    path = Path(folder).expanduser()
    ours = any((path / name).is_file() for name in ("config.json", DELTA_FILE))
    if path.exists() and not ours and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"{key}={folder}: exists and is no saved model; name a new or empty folder")


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, card: str | None = None
) -> Path:
    """Save for AutoModelForCausalLM.from_pretrained(folder), with its card; returns the absolute folder."""
    check_save_folder(folder)
    with whole_folder(Path(folder)) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        if card is not None:
            (fresh / CARD).write_text(card, encoding="utf-8")
    return Path(folder).expanduser().absolute()
