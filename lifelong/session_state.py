"""What a session carries from step to step: what a run saves, and what undo and open put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.schema import Config
from data.base import Edit
from data.batches import StepBatches, step_batches
from editor.base import AnyEditor, StepReport
from lifelong.ledger import Ledger
from lifelong.scored_model import ScoredModel


class SessionState(ScoredModel):
    """A model with its tokenizer, the editor at work on it, the editor's statistics, and what undo goes back to."""

    def __init__(
        self, cfg: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, editor: AnyEditor
    ) -> None:
        super().__init__(cfg, model, tokenizer, editor.inputs)
        self.editor = editor
        self.ledger = Ledger(gib=1.0)
        self.trained = not editor.trains

    def batches(self, edits: Sequence[Edit], *, trains: bool = True) -> StepBatches:
        """The micro-batches of one step's edits; those of rephrased and unrelated prompts where an editor trains."""
        cfg = self.cfg.dataset
        return step_batches(self.tokenizer, edits, cfg.batch_size, cfg.prompt_format, trains=trains)

    def step(self, edits: Sequence[Edit], *, warm_up: bool = False) -> StepReport:
        """Write the edits into the weights in one step; the statistics go on.

        Raises:
            DataError: a prompt or answer without a token.
            NumericsError: something is not finite; model and statistics are then as before.
        """
        return self.editor.step(self.batches(edits, trains=False), warm_up=warm_up)

    def context(self, prompt: str) -> str:
        """What stands before every prompt of the edit with this prompt: the fact, where the editor puts it there."""
        return self.editor.context(prompt)

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
