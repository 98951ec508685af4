"""A model that can be asked and scored, whether an editor is at work on it or not."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.schema import Config
from data.batches import tokenize
from editor.capture import Inputs, tokens_of
from editor.ranks import ALONE
from files import sha256_of_json
from lifelong.answers import Answered, Look, answers
from lifelong.earlier import Written
from model import fingerprint


class ScoredModel:
    """A model with its tokenizer, and the configuration that says how it is asked."""

    def __init__(
        self, cfg: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, inputs: Inputs = tokens_of
    ) -> None:
        self.cfg, self.model, self.tokenizer, self.inputs = cfg, model, tokenizer, inputs
        self.ranks = ALONE
        self.fingerprint = identity(model)
        """Of the weights that it began with."""
        self.earlier: list[Written] = []
        """What was written into it before the first step of a session."""

    def answers(self, pairs: Sequence[tuple[str, str]], look: Look | None = None) -> list[Answered]:
        """What the model would choose where the answers of these (prompt, answer) stand; `look` sees the logits."""
        rows = tokenize(self.tokenizer, pairs, self.cfg.dataset.prompt_format)
        return answers(self.model, rows, self.cfg.eval.tokens_per_batch, look, self.inputs, self.ranks)

    def context(self, prompt: str) -> str:
        """What stands before every prompt of the edit with this prompt."""
        return ""

    def become(self, load: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerBase) -> None:
        """Stand for another model from now on; the two are never in memory together."""
        del self.model
        gc.collect()
        ScoredModel.__init__(self, self.cfg, load(), tokenizer)


def identity(model: PreTrainedModel) -> str:
    """What tells a model's weights from others."""
    return sha256_of_json("", fingerprint(model.state_dict().items()))
