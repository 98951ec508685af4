"""What a step's report says of running statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nets import RunningStatistics


@dataclass(frozen=True, slots=True)
class StatisticsRecord:
    """Running statistics of one weight shape: rows seen, root mean square deviation of keys and value gradients."""

    rows: int
    key_std: float
    gradient_std: float


def describe_statistics(statistics: Mapping[tuple[int, int], RunningStatistics]) -> dict[str, StatisticsRecord]:
    """Running statistics in three numbers per shape."""
    variances = [part.mean() for one in statistics.values() for part in one.std_D.square().split((one.d_k, one.d_v))]
    deviations = torch.stack(variances).sqrt().view(-1, 2).tolist()
    return {
        str(shape): StatisticsRecord(one.n, *pair)
        for (shape, one), pair in zip(statistics.items(), deviations, strict=True)
    }
