"""The fixed sample of a run: edits, drawn once from the seed, and known facts; and locality against the start.

Shape suffixes: M answer positions, W vocabulary, P answer positions of all rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from config.check import ConfigError
from config.schema import EvalConfig
from data.base import Edit
from data.fields import KNOWNS, read_known
from data.source import RecordFile, locate


def drawn(total: int, size: int | None, seed: int) -> list[int]:
    """`size` of range(total), one from each of as many equal stretches: spread over the whole run, in order."""
    if size is None or size >= total:
        return list(range(total))
    generator = random.Random(seed)
    return [generator.randrange(i * total // size, (i + 1) * total // size) for i in range(size)]


def at_positions(edits: Iterable[Edit], indices: list[int]) -> Iterator[tuple[int, Edit]]:
    """The edits at ascending positions, with these, in one streaming pass that ends at the last of them."""
    wanted = set(indices)
    for index, edit in enumerate(islice(edits, indices[-1] + 1 if indices else 0)):
        if index in wanted:
            yield index, edit


def known_facts(cfg: EvalConfig, seed: int) -> list[Edit]:
    """The sample of known facts; none where the default file is not there.

    Raises:
        ConfigError: a file that was asked for by name is not there.
        DataError: the file is broken.
    """
    path = locate(cfg.knowns_path)
    if not cfg.knowns or not path.is_file():
        if cfg.knowns and cfg.knowns_path != EvalConfig.knowns_path:
            raise ConfigError(
                f"eval.knowns_path={cfg.knowns_path}: no such file; get it: {KNOWNS.how_to_get}, or eval.knowns=0"
            )
        return []
    facts = list(RecordFile(path, read_known, seed))
    return [facts[i] for i in drawn(len(facts), cfg.knowns, seed)]


@dataclass
class Reference:
    """Log-probabilities before any edit at rows' answer positions, and how far the model has moved from them."""

    log_probs: dict[int, Tensor]

    def look(self, index: int, logits_MW: Tensor) -> None:
        """Keep a row's log-probabilities [M, W], on the CPU."""
        self.log_probs[index] = logits_MW.log_softmax(-1).cpu()

    def divergence(self, index: int, logits_MW: Tensor) -> float:
        """Mean over positions of KL(before || now), in nats."""
        before_MW = self.log_probs[index].to(logits_MW.device)
        now_MW = logits_MW.log_softmax(-1)
        return (before_MW.exp() * (before_MW - now_MW)).sum(-1).mean().item()

    def save(self, path: Path) -> None:
        """One tensor per row."""
        save_file({str(index): value.contiguous() for index, value in self.log_probs.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """What save wrote."""
        return cls({int(name): value for name, value in load_file(path).items()})
