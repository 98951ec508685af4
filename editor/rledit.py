"""RLEdit: MALMEN's shift, trained on the whole sequence as an agent is on an episode.

At step t the losses of the last `back_depth` steps count, i steps back with weight `time_decay`^i;
shifts stay in the weights, gradients add up, and the network is updated once per sequence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from data.batches import StepBatches
from editor.hyper import TrainReport
from editor.malmen import Malmen


class RLEdit(Malmen):
    """One update of the network per pass over the training steps."""

    @property
    def decay(self) -> float:
        """Weight of a loss one step back."""
        return self.cfg.time_decay or 0.0

    def train_epoch(self, steps: Iterator[StepBatches]) -> Iterator[TrainReport]:
        """One sequence, starting and ending at the weights as they are."""
        start = self.snapshot()
        recent: deque[StepBatches] = deque(maxlen=self.cfg.back_depth)
        for batches in steps:
            recent.appendleft(batches)
            yield self._train_step(batches, list(recent), self.snapshot())
        self.restore(start)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def reported(self, gen: list[list[float]], loc: list[list[float]]) -> tuple[float, float]:
        """Sums over micro-batches, averaged over the steps looked back on; KL times loc_coef."""
        depth = len(gen)
        return sum(map(sum, gen)) / depth, (self.cfg.loc_coef or 0.0) * sum(map(sum, loc)) / depth
