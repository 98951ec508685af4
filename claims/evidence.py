"""What the long runs left: by setting and seed, each edit's scores, and means over the seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from report.load import Run, load_run, number
from report.metrics import interval
from report.numbers import metric_rows

from .stats import Estimate

Scores = Mapping[tuple[int, int], Mapping[str, float]]
"""By (seed, index of the edit): its scores after the last edit, by metric."""

MAIN = ("ES", "GS", "LS")


class Evidence:
    """The finished long runs below `out`; reads each when it is asked for, once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._runs: dict[str, dict[int, Run]] = {}
        self._scores: dict[str, Scores] = {}

    def runs(self, setting: str) -> dict[int, Run]:
        """The finished long runs of a setting by seed."""
        if setting not in self._runs:
            folders = sorted((self.out / "final" / setting).glob("seed*"))
            found = {int(folder.name.removeprefix("seed")): load_run(folder) for folder in folders}
            self._runs[setting] = {seed: run for seed, run in found.items() if run.finished}
        return self._runs[setting]

    def diverged(self, setting: str) -> bool:
        """Whether a long run of the setting, or all of its sweep, ended with numbers that are not finite."""
        finals = [load_run(path) for path in sorted((self.out / "final" / setting).glob("seed*"))]
        sweep = [load_run(path) for path in sorted((self.out / "tune" / setting).glob("*"))]
        return any(map(_diverged, finals)) or (bool(sweep) and all(map(_diverged, sweep)))

    def scores(self, setting: str) -> Scores:
        """Every scored edit of every seed, generation's exact match among the scores where it was generated for."""
        if setting not in self._scores:
            found: dict[tuple[int, int], dict[str, float]] = {}
            for seed, run in self.runs(setting).items():
                path = run.path / "edits.jsonl"
                if path.is_file():
                    with open(path, encoding="utf-8") as file:
                        for line in map(json.loads, file):
                            found[seed, line["index"]] = _scores(line["after"])
            self._scores[setting] = found
        return self._scores[setting]

    def first(self, setting: str, share: float = 0.1) -> Scores:
        """The scores of the edits that were written in the first tenth of a run."""
        edits = {seed: run.results["counts"]["edits"] for seed, run in self.runs(setting).items()}
        return {key: found for key, found in self.scores(setting).items() if key[1] < share * edits[key[0]]}

    def pooled(self, setting: str, metric: str, *, before: bool = False) -> Estimate | None:
        """A final number of results.json over the seeds, with Wilson's interval for all that was scored."""
        side = "before" if before else "value"
        rows = [row for run in self.runs(setting).values() for row in metric_rows(run) if row["metric"] == metric]
        rows = [row for row in rows if row[side] is not None and row["n"]]
        return _pooled([(row[side], int(row["n"])) for row in rows])

    def retained(self, setting: str) -> Estimate | None:
        """ES of the first tenth of the edits, after the last."""
        values = [found["ES"] for found in self.first(setting).values() if "ES" in found]
        return _pooled([(value, 1) for value in values])

    def downstream(self, setting: str, figure: str = "average/accuracy_new") -> tuple[float, float] | None:
        """A downstream figure before the first edit and after the last, means over the runs that asked the most."""
        runs = list(self.runs(setting).values())
        most = max((run.config["downstream"]["number_of_tests"] for run in runs), default=0)
        asked = [run for run in runs if run.config["downstream"]["number_of_tests"] == most]
        pairs = [
            (number(lines[0].get(figure)), number(lines[-1].get(figure)))
            for lines in (run.results.get("downstream") or [] for run in asked)
            if len(lines) > 1
        ]
        whole = [(first, last) for first, last in pairs if first is not None and last is not None]
        if not whole:
            return None
        return sum(first for first, _ in whole) / len(whole), sum(last for _, last in whole) / len(whole)

    def over_time(self, setting: str, group: str, metric: str) -> dict[int, tuple[list[float], list[float]]]:
        """By seed: edits written and a number measured then; `group` is `immediate` or `sample`."""
        curves = {}
        for seed, run in self.runs(setting).items():
            lines = [line for line in run.events["over_time"] if number(line.get(group, {}).get(metric)) is not None]
            curves[seed] = ([line["edits"] for line in lines], [line[group][metric] for line in lines])
        return {seed: curve for seed, curve in curves.items() if curve[0]}

    def shifts(self, setting: str) -> dict[int, tuple[list[float], list[float | None]]]:
        """By seed: per edit step the mean over sites of the shift's norm, and of |cosine to the last shift|."""
        return {seed: _shifts(run) for seed, run in self.runs(setting).items() if run.events["step"]}


def _shifts(run: Run) -> tuple[list[float], list[float | None]]:
    norms, cosines = [], []
    for line in run.events["step"]:
        if line["phase"] != "edit":
            continue
        pairs = list(line["sites"].values())
        norms.append(sum(norm for norm, _ in pairs) / len(pairs))
        turned = [abs(cosine) for _, cosine in pairs if cosine is not None]
        cosines.append(sum(turned) / len(turned) if turned else None)
    return norms, cosines


def _scores(after: Mapping[str, Mapping[str, object]]) -> dict[str, float]:
    found = {metric: float(score["tokens"]) for metric, score in after.items()}  # type: ignore[arg-type]
    return found | {f"{m}_exact": float(s["exact"]) for m, s in after.items() if "exact" in s}  # type: ignore[arg-type]


def _pooled(parts: list[tuple[float, int]]) -> Estimate | None:
    n = sum(count for _, count in parts)
    if not n:
        return None
    value = sum(part * count for part, count in parts) / n
    low, high = interval(value, n)
    return Estimate(value, low, high, n)


def _diverged(run: Run) -> bool:
    return run.status.get("state") == "failed" and bool(re.match("NumericsError", str(run.status.get("error"))))
