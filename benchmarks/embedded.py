"""The embedded model and its quickstart data, ready for a measured step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from config.compose import compose_config
from config.schema import Config
from data.base import Edit
from data.batches import StepBatches, step_batches, steps
from editor.base import Editor
from editor.cache import MemoryCache
from lifelong.setup import Loaded, build_editor, prepare
from model import load_model
from tests.tiny import tiny_words

SITES = [f"model.layers.{layer}.mlp.down_proj" for layer in (25, 26, 27)]


def config(*, quick: bool) -> Config:
    """The measured run; `quick` on a tiny model."""
    if quick:
        return compose_config(tiny_words("num_seq=1", "num_seq_zsre=4"))
    words = ["dataset=facts", "model=smollm2-135m", "editor=stableedit", "wandb.mode=disabled", "editor.alpha=10"]
    words += ["editor.lr=1e-4", "editor.batch_size=512", "num_seq=1", "num_seq_zsre=3"]
    return compose_config([*words, f"model.edit_modules=[{','.join(SITES)}]"])


@dataclass(slots=True)
class Bench:
    """An editor past its warm-up, the step's edits, and the state that every measured step starts from."""

    cfg: Config
    loaded: Loaded
    editor: Editor
    edits: list[Edit]
    device: torch.device
    saved: dict[str, Tensor]

    def batches(self) -> StepBatches:
        """The step's micro-batches, tokenized anew."""
        return step_batches(self.loaded.tokenizer, self.edits, self.cfg.dataset.batch_size)

    def restore(self) -> None:
        """Weights, statistics and last shifts as before the step."""
        self.editor.load_state_tensors(self.saved)


def set_up(cfg: Config, device: torch.device) -> Bench:
    """Load, warm up on training edits, keep the state."""
    prepared = prepare(cfg)
    loaded = Loaded(load_model(cfg.model, device), prepared.tokenizer)
    editor = build_editor(cfg, loaded, MemoryCache(), device)
    assert prepared.data.training is not None
    for edits in steps(iter(prepared.data.training), cfg.dataset.n_edits):
        editor.step(step_batches(loaded.tokenizer, edits, cfg.dataset.batch_size), warm_up=True)
    assert all(statistics.whitens for statistics in editor.statistics.values()), "too few rows: warm up longer"
    saved = {name: tensor.clone() for name, tensor in editor.state_tensors().items()}
    edits = list(islice(iter(prepared.data.edits), cfg.dataset.n_edits))
    return Bench(cfg, loaded, editor, edits, device, saved)
