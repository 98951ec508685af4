"""What the long runs left: by setting and seed, each edit's scores, and estimates with their 95 % intervals."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from scipy.stats import linregress
from scipy.stats import t as student

from lifelong.status import read_status
from report.load import Run, load_run
from report.metrics import interval

from .runner import diverged

MAIN = ("ES", "GS", "LS")


def minutes(run_dir: Path) -> float:
    """How long a finished run took; 0 where it did not finish."""
    status = read_status(run_dir)
    if status.get("state") != "done":
        return 0.0
    return (pd.Timestamp(status["ended"]) - pd.Timestamp(status["started"])) / pd.Timedelta(minutes=1)


class Estimate(NamedTuple):
    """A number with its 95 % interval and what it was estimated from."""

    value: float
    low: float
    high: float
    n: int

    def text(self, digits: int = 3, *, sign: bool = False) -> str:
        """Value and interval as a person reads them."""
        value, low, high = (f"{number:{'+' if sign else ''}.{digits}f}" for number in self[:3])
        return f"{value} ({low} to {high})"

    def times(self, factor: float) -> Estimate:
        """The same in another unit, or the other way round."""
        low, high = sorted((factor * self.low, factor * self.high))
        return Estimate(factor * self.value, low, high, self.n)


def _student(value: float, error: float, freedom: int, n: int) -> Estimate:
    half = float(student.ppf(0.975, freedom)) * error
    return Estimate(value, value - half, value + half, n)


def mean(values: pd.Series) -> Estimate | None:
    """The mean of independent values, with Student's interval; None for fewer than two."""
    n = len(values)
    return _student(values.mean(), float(values.std() / math.sqrt(n)), n - 1, n) if n > 1 else None


def pooled(values: pd.Series, counts: pd.Series) -> Estimate | None:
    """The mean of means over so many shares each, with Wilson's interval; None where nothing was counted."""
    n = int(counts.sum())
    value = float((values * counts).sum()) / max(n, 1)
    return Estimate(value, *interval(value, n), n) if n else None


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent estimates, from their intervals."""
    value = a.value - b.value
    low, high = math.hypot(a.value - a.low, b.high - b.value), math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, value - low, value + high, min(a.n, b.n))


def slope(curves: pd.DataFrame, x: str, y: str) -> Estimate | None:
    """The common slope by least squares, each seed with its own intercept; None for too few points or one x."""
    by_seed = curves[[x, y]].astype(float).groupby(curves["seed"])
    centred = curves[[x, y]] - by_seed.transform("mean")
    freedom = len(curves) - by_seed.ngroups - 1
    if freedom < 1 or not centred[x].any():
        return None
    line = linregress(centred[x], centred[y])  # which takes it that one mean was estimated, not one for each seed
    return _student(line.slope, line.stderr * math.sqrt((len(curves) - 2) / freedom), freedom, len(curves))


def paired(a: pd.DataFrame, b: pd.DataFrame, metrics: Sequence[str]) -> Estimate | None:
    """The mean over the edits (rows) scored in both of a's mean over `metrics` minus b's; None for fewer than two."""
    gaps = a.reindex(columns=list(metrics)) - b.reindex(columns=list(metrics))
    return mean(gaps.dropna().mean(axis=1))


class Evidence:
    """The finished long runs below `out`, by setting and seed; scores are read when they are asked for, once."""

    def __init__(self, out: Path) -> None:
        self.out, self._scores = out, dict[str, pd.DataFrame]()
        self.runs: dict[str, dict[int, Run]] = defaultdict(dict)
        for run in map(load_run, sorted(out.glob("final/*/seed*"))):
            if run.finished:
                self.runs[run.path.parent.name][int(run.path.name.removeprefix("seed"))] = run

    def diverged(self, setting: str) -> bool:
        """Whether a long run of the setting, or all of its sweep, ended with numbers that are not finite."""
        finals, sweep = ([*map(diverged, self.out.glob(f"{stage}/{setting}/*"))] for stage in ("final", "tune"))
        return any(finals) or (bool(sweep) and all(sweep))

    def scores(self, setting: str) -> pd.DataFrame:
        """A row for each scored edit by (seed, edit): after the last edit METRIC and, where generated, METRIC_exact."""
        if setting not in self._scores:
            rows = [row for seed, run in self.runs[setting].items() for row in _scores(seed, run.path / "edits.jsonl")]
            table = pd.DataFrame(rows, columns=None if rows else ["seed", "edit"])
            self._scores[setting] = table.set_index(["seed", "edit"]).astype(float)
        return self._scores[setting]

    def pooled(self, setting: str, metric: str, side: str = "value") -> Estimate | None:
        """A final number (`before`: one before any edit) over the seeds, with Wilson's interval for what was scored."""
        rows = [row for run in self.runs[setting].values() for row in run.rows if row["metric"] == metric]
        table = pd.DataFrame(rows, columns=[side, "n"], dtype=float).dropna()
        return pooled(table[side], table["n"])

    def retained(self, setting: str) -> Estimate | None:
        """ES of the edits that were written in the first tenth of the run, after the last."""
        table = self.scores(setting).reindex(columns=["ES"]).dropna().reset_index()
        written = table["seed"].map({seed: run.results["counts"]["edits"] for seed, run in self.runs[setting].items()})
        early = table["ES"][table["edit"] < 0.1 * written]
        return pooled(early, early.notna())

    def downstream(self, setting: str) -> str:
        """The tasks' mean accuracy before and after all edits (of how many questions), in the runs that asked most."""
        rows = []
        for run in self.runs[setting].values():
            told, lines = run.config["downstream"], run.results.get("downstream") or [{}]
            ends = [line.get("average/accuracy_new") for line in (lines[0], lines[-1])]
            rows.append((told["number_of_tests"] * len(told["tasks"]), *ends))
        table = pd.DataFrame(rows, columns=["asked", "first", "last"], dtype=float)
        found = table[table["asked"] == table["asked"].max()].dropna().mean()
        return "-" if found.isna().any() else f"{found['first']:.3f}, {found['last']:.3f} ({found['asked']:.0f})"

    def curves(self, setting: str, group: str, column: str) -> pd.DataFrame:
        """seed, at and a number: over edits one of the `sample` or of each batch (`immediate`); or one of each `step`.

        The latter is over steps, the mean over the sites of the shift's norm or of |cosine to the last shift|.
        """
        rows: list[tuple[float, ...]] = []
        for seed, run in self.runs[setting].items():
            if group == "step":
                steps = [line["sites"].values() for line in run.events["step"] if line["phase"] == "edit"]
                means = [pd.DataFrame(sites)[column].astype(float).abs().mean() for sites in steps]
                rows += [(seed, step, mean) for step, mean in enumerate(means, 1)]
            else:
                rows += [(seed, ln["edits"], ln[group].get(column)) for ln in run.events["over_time"] if ln.get(group)]
        return pd.DataFrame(rows, columns=["seed", "at", column], dtype=float).dropna()


def _scores(seed: int, records: Path) -> Iterator[dict[str, float]]:
    """The lines of edits.jsonl as rows."""
    for edit in map(json.loads, records.read_text(encoding="utf-8").splitlines() if records.is_file() else ()):
        scores = edit["after"].items()
        exact = {f"{metric}_exact": score["exact"] for metric, score in scores if "exact" in score}
        yield {"seed": seed, "edit": edit["index"]} | {metric: score["tokens"] for metric, score in scores} | exact
