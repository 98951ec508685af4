"""Downstream figures of the unedited model, measured once for all runs on the same model and questions."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.schema import Config, DownstreamBackend
from files import kept
from glue_eval.evaluate import DownstreamEvaluator
from model import fingerprint

FORMAT = 1  # of the kept folder; raise it when what is measured changes
FIGURES = "figures.json"


def abilities_before(
    cfg: Config, downstream: DownstreamEvaluator, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """The figures before any edit: from eval.cache_dir, or measured now and kept there; the model must be as loaded.

    The records base_*.json and base_*.jsonl stand in the run directory either way; the times in kept
    ones are those of the run that measured them.
    """
    if cfg.eval.cache_dir is None or cfg.downstream.backend is DownstreamBackend.lm_eval:
        return downstream.evaluate(model, tokenizer, 0)

    def measure(folder: Path) -> None:
        figures = downstream.evaluate(model, tokenizer, 0)
        for path in downstream.folder.glob("base_*"):
            shutil.copy2(path, folder)
        (folder / FIGURES).write_text(json.dumps(figures), encoding="utf-8")

    parent = Path(cfg.eval.cache_dir).expanduser()
    folder = kept(parent, f"abilities-{_key(cfg, downstream, model, tokenizer)}", measure)
    downstream.folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("base_*"):
        shutil.copy2(path, downstream.folder)
    return json.loads((folder / FIGURES).read_text(encoding="utf-8"))


def _key(
    cfg: Config, downstream: DownstreamEvaluator, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> str:
    """What the figures depend on."""
    about = asdict(cfg.downstream) | {"batch_size": None, "data_dir": None}
    if cfg.downstream.perplexity_text:
        text = Path(cfg.downstream.perplexity_text).expanduser().read_bytes()
        about["perplexity_text"] = hashlib.sha256(text).hexdigest()
    vocabulary = sorted(tokenizer.get_vocab().items())
    versions = [version("torch"), version("transformers")]
    about_model = [model.device.type, str(model.dtype), type(model).__name__]
    words = [FORMAT, about, downstream.rows, downstream.source, vocabulary, about_model, versions]
    key = hashlib.sha256(repr(words).encode())
    key.update(fingerprint(model.state_dict().items()))
    return key.hexdigest()[:32]
