"""The fact in the prompt: an upper bound for what a model can do with a fact, and locality under a distracting one.

Nothing is written. Once a step has taken an edit, every prompt that measures it, its unrelated ones among them, is put
to the model as "PROMPT ANSWER", a line break, and the prompt itself, all inside what dataset.prompt_format makes of a
prompt: under chat in one user turn. Who asks must know which edit a prompt belongs to: scoring does, Session.ask does
not. After IKE (Zheng et al., EMNLP 2023), without its demonstrations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from config.editors import AnyEditorConfig
from data.batches import StepBatches
from editor.base import StepReport
from editor.registry import register
from editor.unedited import Unedited


@register("in_context", config=AnyEditorConfig)
class InContext(Unedited):
    """Remembers the edits, and puts each before its own prompts."""

    def __init__(self, *args: Any, **more: Any) -> None:
        """As AnyEditor."""
        super().__init__(*args, **more)
        self.facts: dict[str, str] = {}

    @staticmethod
    def in_front(prompt: str, answer: str) -> str:
        """The fact as a line."""
        return f"{prompt} {answer}\n"

    def context(self, prompt: str) -> str:
        """The fact that was last given for a prompt, as a line."""
        return self.in_front(prompt, self.facts[prompt]) if prompt in self.facts else ""

    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """Remember the edits."""
        report = super().step(batches, warm_up=warm_up)
        self.facts |= {edit.prompt: edit.answer for edit in batches.edits}
        return report

    def state_tensors(self) -> dict[str, Tensor]:
        """The facts too, as bytes of JSON."""
        said = list(json.dumps(self.facts).encode())
        return super().state_tensors() | {"facts": torch.tensor(said, dtype=torch.uint8)}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave."""
        super().load_state_tensors(tensors)
        self.facts = json.loads(bytes(tensors["facts"].tolist()))
