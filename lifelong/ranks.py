"""One run in several processes, as `torchrun --nproc-per-node=G main.py KEY=VALUE ...` starts them (docs/gpu.md).

Rank 0 runs the program. The others (follower.py) load the same model and do what rank 0 deals out: passes of a step,
batches of a scoring. Before each deal they follow what happened to the sites' weights: all hold the same, bit for bit.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from config.check import RunError
from editor.journal import Journal
from editor.ranks import Here, Item, Ranks, Result
from editor.sites import EditSite
from lifelong.follower import Changes, hash_of
from lifelong.gloo import PATIENCE, get, meet, put
from lifelong.session_state import SessionState
from lifelong.status import Interrupted

log = logging.getLogger(__name__)

EVERY = 20
"""Deals with changed weights between two comparisons of the weights."""
GO_ON = "resume=RUN_DIRECTORY goes on from the last state that was saved, with any number of processes"


class RanksError(RunError):
    """A rank is gone, or holds other weights than rank 0, whose state is sound."""


class Leader(Ranks):
    """Rank 0, and the others at its hand."""

    def __init__(self, others: Sequence[int]) -> None:
        self.others, self.sites = others, list[EditSite]()
        self.changed = 0
        self.waits = False
        """Whether somebody may still be at work."""

    def start(self, session: SessionState) -> None:
        """Have the others load the model of a session, which is as it was loaded, and share out its work.

        Raises:
            RanksError: one of them is gone, or has loaded other weights.
        """
        cfg, editor = session.cfg, session.editor
        found = self._ask("start", cfg.model, session.model.device.type, masters=cfg.editor.float32_masters)
        self._same(found, session.fingerprint)
        self.sites = editor.sites
        for site in self.sites:
            site.journal = Journal(site.weight.nbytes)
        session.ranks = editor.ranks = self
        log.info("%d processes share the passes of a step and of scoring", len(self.others) + 1)

    def deal(self, here: Here, work: Callable[[Here, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As Ranks.deal, the items shared out in turn; a single one stays here.

        Raises:
            RanksError: one of the others is gone, or holds other weights.
        """
        items = list(items)
        if len(items) < 2:
            yield from super().deal(here, work, items)
            return
        if self.changed == EVERY:
            self.compare()
        changes, every = self._changes(), len(self.others) + 1
        self.changed += any(changes)
        self._tell({rank: ("work", (changes, work, items[rank::every]), {}) for rank in self.others})
        found: list[Any] = [None] * len(items)
        try:
            found[::every] = super().deal(here, work, items[::every])
        except Exception:
            self._hear()
            raise
        for rank, theirs in zip(self.others, self._hear(), strict=True):
            found[rank::every] = theirs
        yield from found

    def compare(self) -> None:
        """Refuse to go on with weights that are not everywhere the same, by a RanksError."""
        self.changed = 0
        self._same(self._ask("weights", self._changes()), hash_of(self.sites))

    def end(self) -> list[int]:
        """Send the others home; those that were gone already."""
        lost = []
        for rank in [] if self.waits else self.others:
            try:
                put(None, rank, PATIENCE)
            except RuntimeError:
                lost.append(rank)
        return lost

    def _changes(self) -> Changes:
        return [site.journal.take((site.weight, site.master)) for site in self.sites if site.journal is not None]

    def _ask(self, name: str, *words: Any, **options: Any) -> list[Any]:
        self._tell(dict.fromkeys(self.others, (name, words, options)))
        return self._hear()

    def _tell(self, commands: Mapping[int, Any]) -> None:
        self.waits = True
        for rank, command in commands.items():
            with _reached(rank):
                put(command, rank, PATIENCE)

    def _hear(self) -> list[Any]:
        found = []
        for rank in self.others:
            with _reached(rank):
                found.append(get(rank, PATIENCE))
        self.waits = False
        for error in found:
            if isinstance(error, Exception):
                raise error
        return found

    def _same(self, theirs: Sequence[str], ours: str) -> None:
        for rank, found in zip(self.others, theirs, strict=True):
            if found != ours:
                raise RanksError(f"rank {rank} holds other weights than rank 0: {GO_ON}")


@contextmanager
def _reached(rank: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise gone(rank, str(error)) from error


def gone(rank: int, why: str) -> RanksError:
    """What to say of a rank that is gone; the SIGTERM that torchrun sends us for it must not cut our words short."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    said = "does not answer" if "Timed out" in why else "has ended"
    return RanksError(f"rank {rank} {said}: {GO_ON}")


leader: Leader | None = None


@contextmanager
def leading(others: Sequence[int]) -> Iterator[None]:
    """Around the program in rank 0: the others wait for `share`, and go home in the end."""
    global leader
    meet()
    leader = Leader(others)
    try:
        yield
    except Interrupted as stop:
        if lost := leader.end():
            raise gone(lost[0], str(stop)) from stop
        raise
    except BaseException:
        leader.end()
        raise
    leader.end()


def share(session: SessionState) -> None:
    """Share out the work of a session, where there are ranks to share it with."""
    if leader is not None:
        leader.start(session)
