"""The lifelong loop: train, then for each step of the schedule edit, record, let the watchers look, save."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch

from config.editors import LearnedConfig
from config.progress import Progress
from config.schema import Config
from data.base import DataError, Edit
from data.batches import StepBatches, steps
from data.source import RecordFile
from editor.base import StepReport, Stopwatch
from editor.learned import LearnedEditor
from lifelong.ranks import RanksError
from lifelong.recorder import Recorder
from lifelong.resume import Checkpoints, Kept, Owner
from lifelong.session import Session
from lifelong.setup import Data, schedule, warm_up_steps
from lifelong.status import StopRequests, writing
from nets import NumericsError

log = logging.getLogger(__name__)


class Training(Kept):
    """The passes of a learned editor over its training edits, and how far they are."""

    kept = ("epoch", "trained", "done", "losses")

    def __init__(self, session: Session, records: RecordFile | None, recorder: Recorder) -> None:
        assert isinstance(session.editor, LearnedEditor)
        self.session, self.editor, self.records, self.recorder = session, session.editor, records, recorder
        self.cfg: LearnedConfig = session.editor.cfg
        self.n_edits = session.cfg.dataset.n_edits
        self.epoch, self.trained, self.done = 0, 0, session.trained
        self.losses: dict[str, float] = {}

    def steps(self) -> Iterator[int]:
        """Train, or load trained networks; gives the number of steps of the pass that are done after each.

        Raises:
            NumericsError: something is not finite; names step and edits, the state is that before the step.
        """
        if self.cfg.load_checkpoint:
            self.editor.load_networks(self.cfg.load_checkpoint)
        else:
            yield from self._epochs()
            self.editor.last_shifts.clear()
            if self.cfg.save_checkpoint:
                self.editor.save_networks(Path(self.recorder.run_dir) / "checkpoint")
        self.done = True

    def _epochs(self) -> Iterator[int]:
        assert self.records is not None
        each = len(self.records) // self.n_edits
        with Progress(total=each * self.cfg.n_epochs, desc="train", unit="step", disable=None, leave=False) as bar:
            bar.update(self.trained + self.epoch * each)
            for epoch in range(self.epoch, self.cfg.n_epochs):
                self.epoch = epoch
                for line in self._epoch():
                    self.recorder.log({"event": "train", "epoch": self.epoch, "index": self.trained, **line})
                    self.losses = {name: line[name] for name in ("gen_loss", "loc_loss")}
                    self.trained += 1
                    bar.set_postfix({name: f"{value:.4f}" for name, value in self.losses.items()})
                    bar.update()
                    yield self.trained
                self.trained = 0

    def _epoch(self) -> Iterator[dict[str, Any]]:
        try:
            with writing("editor.cache_dir", self.cfg.cache_dir):
                yield from map(asdict, self.editor.train_epoch(self._batches(), self.trained))
        except NumericsError as error:
            first = self.trained * self.n_edits
            where = f"training step {self.trained} of epoch {self.epoch}"
            where += f" (training edits {first} to {first + self.n_edits - 1})"
            raise NumericsError(f"{where}: {error}") from error

    def _batches(self) -> Iterator[StepBatches]:
        """The steps of one pass that are still needed: those ahead, and those to look back on."""
        assert self.records is not None
        first = max(0, self.trained - self.editor.lookback + 1)
        for edits in islice(steps(iter(self.records), self.n_edits), first, None):
            yield self.session.batches(edits)


class Watcher(Kept):
    """Measures the model before the first edit and after every so many steps of edits (0: never)."""

    kept: ClassVar[tuple[str, ...]] = ("measured",)
    event: ClassVar[str]  # what its lines of metrics.jsonl are called
    phase: ClassVar[str]  # what its seconds are called
    patient = False
    """Looks only after the state was saved: a stop need not wait for it, and a resumed run catches up."""

    def __init__(self, every: int, n_edits: int, recorder: Recorder, watch: Stopwatch) -> None:
        self.every, self.n_edits, self.recorder, self.watch = every, n_edits, recorder, watch
        self.measured = -1  # the last step that was measured
        self.edits_done = 0

    def look(self, edits_done: int, batch: Sequence[Edit]) -> str:
        """Measure where it is due, `batch` being what the last step wrote; a word for the progress bar, or nothing."""
        step = -(-edits_done // self.n_edits)  # the last one may be smaller
        if not self.every or step % self.every or step <= self.measured:
            return ""
        self.edits_done = edits_done
        with self.watch(self.phase):
            found = self.measure(step, batch)
        self.measured = step
        self.recorder.log({"event": self.event, "edits": edits_done, **found})
        return f"ES of step {step}={found['immediate']['ES']:.2f}" if "immediate" in found else ""

    @abstractmethod
    def measure(self, step: int, batch: Sequence[Edit]) -> dict[str, Any]:
        """What there is to say after `step` steps."""


class Loop(Kept):
    """The steps of a run over a session, and how far they are."""

    kept = ("position", "edits", "tokens", "changed")

    def __init__(
        self, cfg: Config, session: Session, data: Data, recorder: Recorder, checkpoints: Checkpoints,
        watchers: Mapping[str, Watcher], owners: Mapping[str, Owner], watch: Stopwatch, stop: StopRequests,
    ) -> None:  # fmt: skip
        self.cfg, self.session, self.data, self.recorder, self.checkpoints = cfg, session, data, recorder, checkpoints
        self.watchers, self.watch, self.stop = watchers, watch, stop
        self.position, self.edits, self.tokens, self.changed = 0, 0, 0, False
        trains = session.editor.trains
        self.training = Training(session, data.training, recorder) if trains else None
        training = {"training": self.training} if self.training else {}
        self.owners: dict[str, Owner] = {
            "session": session, "loop": self, "recorder": recorder, "watch": watch, **owners, **watchers, **training
        }  # fmt: skip

    def save(self) -> None:
        """Save the state between two steps, unless checkpoint.every is 0."""
        if self.cfg.checkpoint.every:
            with self.watch("checkpoint"):
                self.checkpoints.save(self.session, self.owners)

    def run(self) -> None:
        """All steps that are still ahead.

        Raises:
            Interrupted: after a signal, with the state saved.
            NumericsError: with step, site and edits, and the state before the step saved.
            RanksError: under torchrun, with the state before the step saved.
            torch.OutOfMemoryError: with the state before the step saved, unless some of its sites were written.
        """
        try:
            self.train()
            self.edit()
        except (NumericsError, RanksError, torch.OutOfMemoryError):
            if not self.session.editor.half_written:
                self.save()
            raise

    def train(self) -> None:
        """Train a learned editor's networks."""
        if self.training is None or self.training.done:
            return
        with self.watch("train"):
            for trained in self.training.steps():
                self._between_steps(trained)
        self.save()

    def edit(self) -> None:
        """The warm-up and edit steps."""
        total, shown = self.cfg.edit_steps + warm_up_steps(self.cfg), ""
        if self.position == 0 and self.data.training and self.session.editor.reads(self.cfg.editor):
            with self.watch("read"):
                self.session.read(self.data.training)
        self._look([], patient=False)
        self._look([], patient=True)
        with Progress(total=total, initial=self.position, desc="edit", unit="step", disable=None, leave=False) as bar:
            for warm_up, edits in islice(schedule(self.cfg, self.data), self.position, None):
                begun = time.perf_counter()
                report = self.step(edits, warm_up=warm_up)
                shown = (not warm_up and self._look(edits, patient=False)) or shown
                speed = len(edits) / (time.perf_counter() - begun)
                bar.set_postfix_str(", ".join(filter(None, [f"edits/s={speed:.1f}, loss={report.loss:.3f}", shown])))
                bar.update()
                self._between_steps(self.position, last=self.position == total)
                if not warm_up:
                    self._look(edits, patient=True)

    def step(self, edits: list[Edit], *, warm_up: bool) -> StepReport:
        """Write one step and record it."""
        retries = self.session.editor.retries
        before = retries.total()
        try:
            with writing("editor.cache_dir", self.cfg.editor.cache_dir):
                report = self.session.step(edits, warm_up=warm_up)
        except (NumericsError, DataError) as error:
            where = f"{'warm-up ' * warm_up}step {self.position} (rows {edits[0].row} to {edits[-1].row})"
            raise NumericsError(f"{where}: {error}") from error
        if retries.total() > before:
            log.warning("step %d: decompositions retried so far: %s", self.position, dict(retries))
        self.position += 1
        self.edits += 0 if warm_up else len(edits)
        self.tokens += report.tokens
        self.changed |= any(site.shift_norm > 0 and site.lost_share < 1 for site in report.sites.values())
        self.watch.add({f"step: {name}": seconds for name, seconds in report.seconds.items()})
        line = {"event": "step", "index": self.position - 1, "phase": "warm-up" if warm_up else "edit"}
        self.recorder.log(line | {"edits": self.edits, **asdict(report)})
        return report

    def _look(self, batch: Sequence[Edit], *, patient: bool) -> str:
        said = [w.look(self.edits, batch) for w in self.watchers.values() if w.patient is patient]
        return ", ".join(filter(None, said))

    def _between_steps(self, done: int, *, last: bool = False) -> None:
        every = self.cfg.checkpoint.every
        if every and (last or done % every == 0 or self.stop.signum is not None):
            self.save()
        self.stop.check()
