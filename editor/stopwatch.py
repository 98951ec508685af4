"""Where a step's seconds go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stopwatch:
    """Seconds by phase: `with watch("ridge"): ...` adds to that phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what was timed elsewhere."""
        for phase, more in seconds.items():
            self.seconds[phase] += more

    def state_dict(self) -> dict[str, float]:
        """The seconds so far."""
        return dict(self.seconds)

    load_state_dict = add

    def over(self, phase: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; what it takes until each is there counts as the phase."""
        waiting, over = iter(items), object()
        while True:
            with self(phase):
                item = next(waiting, over)
            if item is over:
                return
            yield item  # type: ignore[misc]

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time one stretch of a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start
