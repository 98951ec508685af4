"""Several runs side by side: what varies between them, which is best, and which failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from files import flatten
from report.load import Run
from report.metrics import MERIT, merit
from report.numbers import before_scores, final_scores, shown

QUIET = ("wandb.name", "model_cache_dir", "resume")  # keys that name things and change no number


@dataclass(frozen=True)
class Comparison:
    """Runs, a line each: their values of the keys that vary; ES, GS, LS and, last, the merit by which one is best."""

    runs: list[Run]
    settings: pd.DataFrame
    scores: pd.DataFrame

    @property
    def keys(self) -> list[str]:
        """The keys that vary."""
        return list(self.settings)

    @property
    def merit_name(self) -> str:
        """What the merit is: a change since before editing where that was measured."""
        return str(self.scores.columns[-1])

    @property
    def relative(self) -> bool:
        """Whether the merit is a change since before editing."""
        return self.merit_name == "mean change"

    @property
    def best(self) -> int | None:
        """The place of the finished run with the highest merit, the first of equals; None where there is no choice."""
        merits = self.scores[self.merit_name].dropna()
        return int(merits.idxmax()) if len(merits) > 1 else None

    @property
    def failed(self) -> list[Run]:
        """The runs whose numbers do not count."""
        return [run for run in self.runs if not run.finished]


def compare(runs: Sequence[Run]) -> Comparison:
    """Find what varies (in the overrides of a sweep, else in the configurations) and what is best."""
    given = [_overrides(run) for run in runs]
    table = pd.DataFrame(given, dtype=object)
    keys = list(table.columns[table.nunique(dropna=False) > 1]) if all(given) else []
    if not keys:
        table = pd.DataFrame([{k: shown(v) for k, v in flatten(run.config).items()} for run in runs], dtype=object)
        known = table[[bool(run.config) for run in runs]].fillna("null")
        keys = list(known.columns[known.nunique() > 1])
    settings = table[[key for key in keys if key not in QUIET]].fillna("")
    return Comparison(list(runs), settings, _scores(runs))


def _overrides(run: Run) -> dict[str, str]:
    pairs = [word.lstrip("+").partition("=") for word in run.overrides]
    return {key: value for key, equals, value in pairs if equals and not key.startswith("hydra.")}


def _scores(runs: Sequence[Run]) -> pd.DataFrame:
    """Per run ES, GS, LS and the merit; NaN for a run that did not finish."""
    after = [final_scores(run) if run.finished else {} for run in runs]
    before = [before_scores(run) for run in runs]
    relative = any(name in start for run, start in zip(runs, before, strict=True) if run.finished for name in MERIT)
    merits = [merit(*pair) for pair in zip(after, before, strict=True)]
    table = pd.DataFrame([{name: scores.get(name) for name in MERIT} for scores in after], columns=MERIT, dtype=float)
    return table.assign(**{"mean change" if relative else "mean score": pd.Series(merits, dtype=float)})


def ordered(values: Sequence[str]) -> list[str]:
    """Distinct values: numbers by size, else as they came."""
    distinct = list(dict.fromkeys(values))
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct
