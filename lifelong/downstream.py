"""The downstream tasks, looked at while a run edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from config.schema import Config
from data.base import Edit
from editor.base import Stopwatch
from files import finite
from glue_eval.evaluate import DownstreamEvaluator, abilities_before
from lifelong.loop import Watcher
from lifelong.recorder import Recorder
from lifelong.session import Session
from lifelong.status import writing


class Downstream(Watcher):
    """Runs the downstream tasks."""

    kept = (*Watcher.kept, "found")
    event = phase = "downstream"
    patient = True

    def __init__(
        self, cfg: Config, evaluator: DownstreamEvaluator, session: Session, recorder: Recorder, watch: Stopwatch
    ) -> None:
        super().__init__(cfg.downstream_eval_steps, cfg.dataset.n_edits, recorder, watch)
        self.cfg, self.evaluator, self.session = cfg, evaluator, session
        self.found: list[dict[str, Any]] = []  # what every look has measured

    def measure(self, step: int, batch: Sequence[Edit]) -> dict[str, Any]:
        """The tasks' figures."""
        model, tokenizer, edits = self.session.model, self.session.tokenizer, self.edits_done
        if step:
            figures = self.evaluator.evaluate(model, tokenizer, edits)
        else:
            with writing("eval.cache_dir", self.cfg.eval.cache_dir):
                figures = abilities_before(self.cfg, self.evaluator, model, tokenizer)
        self.found.append(finite({"edits": self.recorder.edits_before + edits, **figures}))
        return figures
