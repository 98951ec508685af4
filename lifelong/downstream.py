"""The downstream tasks as a watcher of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from config.schema import Config
from data.base import Edit
from editor.base import Stopwatch
from glue_eval.evaluate import DownstreamEvaluator, abilities_before
from lifelong.recorder import Recorder
from lifelong.session import Session


class Downstream:
    """Runs the tasks before the first step and after every downstream_eval_steps."""

    patient = True

    def __init__(
        self, cfg: Config, evaluator: DownstreamEvaluator, session: Session, recorder: Recorder, watch: Stopwatch
    ) -> None:
        self.cfg, self.evaluator, self.session, self.recorder, self.watch = cfg, evaluator, session, recorder, watch
        self.measured = -1

    def state_dict(self) -> dict[str, int]:
        """The last step that was measured."""
        return {"measured": self.measured}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take over what state_dict gave."""
        self.measured = state["measured"]

    def look(self, edits_done: int, batch: Sequence[Edit]) -> str:
        """Run the tasks where they are due, and write their figures to metrics.jsonl."""
        step = edits_done // self.cfg.dataset.n_edits
        if step % self.cfg.downstream_eval_steps or step == self.measured:
            return ""
        model, tokenizer = self.session.model, self.session.tokenizer
        with self.watch("downstream"):
            if edits_done:
                found = self.evaluator.evaluate(model, tokenizer, edits_done)
            else:
                found = abilities_before(self.cfg, self.evaluator, model, tokenizer)
        self.measured = step
        self.recorder.log({"event": "downstream", "edits": edits_done, **found})
        return ""
