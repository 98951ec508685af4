"""RLEdit: MALMEN's shift, trained on the whole sequence as an agent is on an episode.

At step t the losses of the last `back_depth` steps count, i steps back with weight `time_decay`^i;
shifts stay in the weights, gradients add up, and the network is updated once per sequence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from config.editors import RLEditConfig
from data.batches import StepBatches
from editor.learned import TrainReport
from editor.malmen import Malmen
from editor.registry import register


@register("rledit", config=RLEditConfig)
class RLEdit(Malmen):
    """One update of the network per pass over the training steps."""

    cfg: RLEditConfig

    def __init__(self, *args: Any, **more: Any) -> None:
        """As LearnedEditor."""
        super().__init__(*args, **more)
        self.lookback, self.decay = self.cfg.back_depth, self.cfg.time_decay

    def train_epoch(self, steps: Iterable[StepBatches], done: int = 0) -> Iterator[TrainReport]:
        """One sequence, starting at the weights as loaded and ending there."""
        recent: deque[StepBatches] = deque(maxlen=self.lookback)
        behind = min(done, self.lookback - 1)
        for index, batches in enumerate(steps):
            recent.appendleft(batches)
            if index >= behind:
                yield self._train_step(batches, list(recent), self.snapshot())
        self.restore(self.originals)
        self.networks.step()

    def reported(self, gen: list[list[float]], loc: list[list[float]]) -> tuple[float, float]:
        """Sums over micro-batches, averaged over the steps looked back on; KL times loc_coef."""
        depth = len(gen)
        return sum(map(sum, gen)) / depth, self.cfg.loc_coef * sum(map(sum, loc)) / depth
