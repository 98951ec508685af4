"""Several runs side by side: what varies between them, which is best, and which failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from files import flatten
from report.load import Run
from report.numbers import before_scores, differing, final, shown
from report.terminal import aligned

MAIN = ("ES", "GS", "LS")
QUIET = ("wandb.name", "model_cache_dir", "resume")  # keys that name things and change no number


@dataclass(frozen=True)
class Comparison:
    """Runs with the keys that vary, each run's value of them, and the merit by which one is best."""

    runs: list[Run]
    keys: list[str]
    settings: list[dict[str, str]]
    merit_name: str
    merits: list[float | None]

    @property
    def relative(self) -> bool:
        """Whether the merit is a change since before editing."""
        return self.merit_name == "mean change"

    @property
    def best(self) -> int | None:
        """The index of the finished run with the highest merit."""
        found = [(merit, -index) for index, merit in enumerate(self.merits) if merit is not None]
        return -max(found)[1] if len(found) > 1 else None

    @property
    def failed(self) -> list[Run]:
        """The runs whose numbers do not count."""
        return [run for run in self.runs if not run.finished]


def compare(runs: Sequence[Run]) -> Comparison:
    """Find what varies (in the overrides of a sweep, else in the configurations) and what is best."""
    given = [_overrides(run) for run in runs]
    keys = _varied(given) if all(given) else []
    if not keys:
        given = [{k: shown(v) for k, v in flatten(run.config).items()} for run in runs]
        keys = differing(runs)
    keys = [key for key in keys if key not in QUIET]
    settings = [{key: values.get(key, "") for key in keys} for values in given]
    return Comparison(list(runs), keys, settings, *_merits(runs))


def _overrides(run: Run) -> dict[str, str]:
    pairs = [word.lstrip("+").partition("=") for word in run.overrides]
    return {key: value for key, equals, value in pairs if equals and not key.startswith("hydra.")}


def _varied(given: Sequence[dict[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for values in given for key in values)
    return [key for key in keys if len({values.get(key) for values in given}) > 1]


def _merits(runs: Sequence[Run]) -> tuple[str, list[float | None]]:
    """Per run the mean change of ES, GS and LS since before editing; where a run has no before, their mean."""
    done = [run for run in runs if run.finished]
    relative = bool(done) and all(all(name in before_scores(run) for name in MAIN) for run in done)
    merits: list[float | None] = []
    for run in runs:
        values = [final(run, name) for name in MAIN] if run.finished else [None]
        if None in values:
            merits.append(None)
            continue
        before = before_scores(run) if relative else {}
        merits.append(sum(value - before.get(name, 0.0) for name, value in zip(MAIN, values, strict=True)) / len(MAIN))
    return "mean change" if relative else "mean score", merits


def ordered(values: Sequence[str]) -> list[str]:
    """Distinct values: numbers by size, else as they came."""
    distinct = list(dict.fromkeys(values))
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct


def text_table(runs: Sequence[Run]) -> str:
    """A table for the terminal; the best job is marked with *, and what stopped the others is listed below."""
    found = compare(runs)
    head = ["", "job", *found.keys, *MAIN, found.merit_name, "state"]
    rows = []
    for index, run in enumerate(found.runs):
        numbers = [final(run, name) if run.results else None for name in MAIN]
        cells = ["-" if value is None else f"{value:.4f}" for value in (*numbers, found.merits[index])]
        mark = "*" if index == found.best else ""
        rows.append([mark, run.name, *(found.settings[index][key] for key in found.keys), *cells, run.state])
    lines = [aligned(head, rows, left=(*range(len(found.keys) + 2), len(head) - 1))]
    if found.best is not None:
        lines.append(f"* best by {found.merit_name} of ES, GS and LS" + " since before editing" * found.relative)
    lines += [f"{run.name}: {run.state}: {run.status.get('error') or reason(run)}" for run in found.failed]
    return "\n".join(lines)


def reason(run: Run) -> str:
    """Why a run without an error has no numbers that count."""
    if run.state == "running":
        return "still running, or killed: it has not written results.json"
    if not run.status:
        return "no status.json and no results.json: it stopped before it began, or was killed"
    return "it has not written results.json" if not run.results else "it ended otherwise than done"
