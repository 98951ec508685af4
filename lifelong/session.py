"""A model under editing: what the command line's runs work on, and Python."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.schema import Config
from data.base import Edit
from data.batches import StepBatches, step_batches, tokenize
from editor.base import Editor, StepReport
from editor.cache import row_cache
from editor.capture import tokens_of
from editor.frozen import frozen_inputs
from editor.registry import editor_class
from editor.sites import find_sites
from exports.folders import save_model
from files import sha256_of_json
from lifelong.answers import Answered, Look, answers, chunks, probes
from model import fingerprint, load_model
from report.metrics import Tally

log = logging.getLogger(__name__)


class Session:
    """A model with its tokenizer, the editor at work on it, and the editor's statistics."""

    def __init__(self, cfg: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, editor: Editor) -> None:
        self.cfg, self.model, self.tokenizer, self.editor = cfg, model, tokenizer, editor
        self.inputs = editor.inputs
        self.fingerprint = sha256_of_json("", fingerprint(model.state_dict().items()))
        """Of the weights that the session began with."""

    def batches(self, edits: Sequence[Edit]) -> StepBatches:
        """The micro-batches of one step's edits."""
        cfg = self.cfg.dataset
        return step_batches(self.tokenizer, edits, cfg.batch_size, cfg.prompt_format)

    def edit(self, edits: Sequence[Edit], *, warm_up: bool = False) -> StepReport:
        """Write the edits into the weights in one step; the statistics go on.

        Raises:
            DataError: a prompt or answer without a token.
            NumericsError: something is not finite; model and statistics are then as before.
        """
        return self.editor.step(self.batches(edits), warm_up=warm_up)

    def score(self, edits: Iterable[Edit]) -> dict[str, float]:
        """ES, GS, LS and their kin: mean token accuracies over the edits that have the prompt (docs/design.md, 1)."""
        tally = Tally()
        for chunk in chunks(edits, None, "score"):
            asked = [one for edit in chunk for one in probes(edit, mhop=self.cfg.dataset.eval_mhop).items()]
            for (metric, _), answered in zip(asked, self.answers([pair for _, pair in asked]), strict=True):
                tally.add(metric, answered.accuracy)
        return tally.means()

    def answers(self, pairs: Sequence[tuple[str, str]], look: Look | None = None) -> list[Answered]:
        """What the model would choose where the answers of these (prompt, answer) stand; `look` sees the logits."""
        rows = tokenize(self.tokenizer, pairs, self.cfg.dataset.prompt_format)
        return answers(self.model, rows, self.cfg.eval.tokens_per_batch, look, self.inputs)

    def save(self, folder: str | Path) -> Path:
        """Save model and tokenizer for AutoModelForCausalLM.from_pretrained(folder); returns the absolute folder."""
        return save_model(self.model, self.tokenizer, folder)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, by name: weights, statistics, networks, the random state."""
        return self.editor.state_tensors() | {"rng": torch.get_rng_state()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what tensors() gave.

        Copies: those of a file lie where the file has them, and kernels round by the alignment that they find.
        """
        fresh = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        torch.set_rng_state(fresh.pop("rng").cpu())
        self.editor.load_state_tensors(fresh)

    def state_dict(self) -> dict[str, Any]:
        """What is no tensor: how often a decomposition was tried again."""
        return {"retries": dict(self.editor.retries)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict gave."""
        self.editor.retries.update(state["retries"])


@contextmanager
def open_session(
    cfg: Config, tokenizer: PreTrainedTokenizerBase, device: torch.device, solve_device: torch.device
) -> Iterator[Session]:
    """Load the model that the config names and put its editor to work; the editor's row cache ends with the block.

    Raises:
        ConfigError: the model cannot be opened, a site cannot be edited, layers cannot be run apart.
    """
    model = load_model(cfg.model, device)
    inputs = frozen_inputs(model, cfg.model)
    if cfg.model.frozen_cache_dir and inputs is tokens_of:
        log.warning("model.frozen_cache_dir has no effect: no layer lies below the lowest site")
    sites = find_sites(model, cfg.model.edit_modules, masters=cfg.editor.float32_masters)
    with row_cache(cfg.editor.cache_dir, solve_device) as cache:
        kind = editor_class(cfg.editor.name)
        editor = kind(cfg.editor, model, sites, cache, solve_device=solve_device, seed=cfg.seed, inputs=inputs)
        yield Session(cfg, model, tokenizer, editor)
