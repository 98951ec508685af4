"""Training of a learned editor's networks before the first edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from config.schema import LearnedConfig
from data.batches import StepBatches, steps
from data.source import RecordFile
from editor import saved_networks
from editor.learned import LearnedEditor
from lifelong.recorder import Recorder
from lifelong.session import Session
from nets import NumericsError


class Training:
    """The passes of a learned editor over its training edits, and how far they are."""

    def __init__(self, session: Session, records: RecordFile | None, recorder: Recorder) -> None:
        assert isinstance(session.editor, LearnedEditor)
        self.session, self.editor, self.records, self.recorder = session, session.editor, records, recorder
        self.cfg: LearnedConfig = session.editor.cfg
        self.n_edits = session.cfg.dataset.n_edits
        self.epoch, self.trained, self.done = 0, 0, False
        self.losses: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """How far training is."""
        return {"epoch": self.epoch, "trained": self.trained, "done": self.done, "losses": self.losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict gave."""
        self.epoch, self.trained, self.done = state["epoch"], state["trained"], state["done"]
        self.losses = dict(state["losses"])

    def steps(self) -> Iterator[int]:
        """Train, or load trained networks; gives the number of steps of the pass that are done after each.

        Raises:
            NumericsError: something is not finite; names step and edits, the state is that before the step.
        """
        if self.cfg.load_checkpoint:
            saved_networks.load(self.editor, self.cfg.load_checkpoint)
        else:
            yield from self._epochs()
            self.editor.last_shifts.clear()
            if self.cfg.save_checkpoint:
                saved_networks.save(self.editor, Path(self.recorder.run_dir) / "checkpoint")
        self.done = True

    def _epochs(self) -> Iterator[int]:
        assert self.records is not None
        each = len(self.records) // self.n_edits
        with tqdm(total=each * self.cfg.n_epochs, desc="train", unit="step", disable=None, leave=False) as bar:
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
