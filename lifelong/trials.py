"""One trial of a step size: from the model as loaded, write held-out edits, score them, go back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config.editors import EditorConfig, FinetuneConfig
from data.base import Edit
from data.batches import steps
from data.source import RecordFile
from lifelong.scorer import Scorer, compare
from lifelong.session import Session
from nets import NumericsError
from report.metrics import Measured, Tally, merit

FAINT_LR = 1e-9  # writes nothing to speak of: shifts are linear in the step size


@dataclass(frozen=True, slots=True)
class Trial:
    """What a step size gave: scores, objective and the last step's shift against its weight; or why it failed."""

    sites: list[str]
    lr: float
    objective: float | None = None
    scores: dict[str, float] | None = None
    relative_shift: float | None = None
    error: str | None = None


class Trials:
    """Trials on one session, each from the same state: a warm-up as the run's, then the edits step by step."""

    def __init__(self, session: Session, edits: Sequence[Edit], warm_up: RecordFile | None, sites: list[str]) -> None:
        """Scores the edits with the model as it is."""
        self.session, self.edits, self.warm_up, self.sites = session, edits, warm_up, sites
        assert isinstance(session.editor.cfg, EditorConfig | FinetuneConfig)
        self.tuned = session.editor.cfg
        self.lr = self.tuned.lr
        self.start = {name: value.clone() for name, value in session.tensors().items()}
        self.norms = {site.name: site.weight.float().norm().item() for site in session.editor.sites}
        self.scorer = Scorer(session, edits, lambda: None)
        tally = Tally()
        self.lines = [scores for _, _, scores in self.scorer.scored("score", tally)]
        self.before: Measured = _measured(tally)
        self.after: dict[float, Measured] = {}
        self.thin = False  # whether the last trial ended with rows too few to whiten by

    def run(self, lr: float) -> Trial:
        """Edit with a step size and score; the session is then as before."""
        try:
            relative = self.write(lr)
            tally = Tally()
            for before, (_, _, scores) in zip(self.lines, self.scorer.scored("score", tally), strict=True):
                compare(tally, before, scores)
        except NumericsError as error:
            return Trial(self.sites, lr, error=str(error))
        finally:
            self.go_back()
        self.after[lr] = _measured(tally)
        means = tally.means()
        found = merit(means, {name: value for name, (value, _) in self.before.items()}, self.session.cfg.eval.best)
        return Trial(self.sites, lr, found, means, relative)

    def per_lr(self) -> float:
        """The shift of a step against its weight, per unit of step size; the session is then as before.

        Raises:
            NumericsError: something is not finite.
        """
        try:
            return self.write(FAINT_LR) / FAINT_LR
        finally:
            self.go_back()

    def write(self, lr: float) -> float:
        """Write the edits; the largest shift of the last step against the norm of its site's weight as loaded."""
        session, relative = self.session, 0.0
        self.tuned.lr = lr
        n_edits = session.cfg.dataset.n_edits
        for records, warm_up in ((self.warm_up or [], True), (self.edits, False)):
            for batch in steps(iter(records), n_edits):
                report = session.step(batch, warm_up=warm_up)
                relative = max(site.shift_norm / self.norms[name] for name, site in report.sites.items())
        kept = [one for one in session.editor.statistics.values() if one.scatter_VV is not None]
        self.thin = not all(one.whitens for one in kept)
        return relative

    def go_back(self) -> None:
        """To the state of the start, statistics included."""
        self.session.load_tensors(self.start)


def _measured(tally: Tally) -> Measured:
    return {name: (value, tally.counts[name]) for name, value in tally.means().items()}
