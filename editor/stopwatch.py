"""Where a step's seconds go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")


class Stopwatch:
    """Seconds by phase: `with watch("ridge"): ...` adds to that phase.

    On a GPU they are those of its own clock, between the calls that the phase sent it: the host does not wait, and a
    phase that only sends work is not taken for a short one.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device if device is not None and device.type == "cuda" else None
        self._seconds: dict[str, float] = defaultdict(float)
        self._sent: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds so far; waits for what was sent to a GPU."""
        if self._sent:
            self._sent[-1][-1].synchronize()
        for phase, start, end in self._sent:
            self._seconds[phase] += start.elapsed_time(end) / 1000
        self._sent.clear()
        return self._seconds

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what was timed elsewhere."""
        for phase, more in seconds.items():
            self._seconds[phase] += more

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
        start, event = time.perf_counter(), self._event()
        try:
            yield
        finally:
            if event is not None and (now := self._event()) is not None:
                self._sent.append((phase, event, now))
            else:
                self._seconds[phase] += time.perf_counter() - start

    def _event(self) -> torch.cuda.Event | None:
        if self.device is None:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event
