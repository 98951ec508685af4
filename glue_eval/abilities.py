"""Downstream figures of the unedited model, measured once for all runs on the same model and questions."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.schema import Config, DownstreamBackend
from files import kept, read_json, sha256_of, sha256_of_json, write_json
from glue_eval.evaluate import DownstreamEvaluator
from model import fingerprint

FORMAT = 2  # of the kept folder; raise it when what is measured changes
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
        write_json(folder / FIGURES, figures)

    parent = Path(cfg.eval.cache_dir).expanduser()
    folder = kept(parent, f"abilities-{_key(cfg, downstream, model, tokenizer)}", measure)
    downstream.folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("base_*"):
        shutil.copy2(path, downstream.folder)
    return read_json(folder / FIGURES)


def _key(
    cfg: Config, downstream: DownstreamEvaluator, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> str:
    """What the figures depend on."""
    about = asdict(cfg.downstream) | {"batch_size": None, "data_dir": None}
    if cfg.downstream.perplexity_text:
        about["perplexity_text"] = sha256_of(Path(cfg.downstream.perplexity_text).expanduser())
    rows = {name: asdict(part) for name, part in downstream.rows.items()}
    about_model = [model.device.type, str(model.dtype), type(model).__name__, version("torch"), version("transformers")]
    words = [FORMAT, about, rows, downstream.source, sorted(tokenizer.get_vocab().items()), about_model]
    return sha256_of_json(words, fingerprint(model.state_dict().items()))[:32]
