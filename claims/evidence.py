"""What the long runs left: by setting and seed, each edit's scores, and means over the seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from report.load import Run, load_run, number
from report.numbers import metric_rows

from .stats import Estimate, pooled

MAIN = ("ES", "GS", "LS")


class Evidence:
    """The long runs below `out`; scores are read when they are asked for, once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._all = {folder: load_run(folder) for folder in sorted(out.glob("final/*/seed*"))}
        self._scores: dict[str, pd.DataFrame] = {}

    def runs(self, setting: str) -> dict[int, Run]:
        """The finished long runs of a setting by seed."""
        mine = {folder: run for folder, run in self._all.items() if folder.parent.name == setting and run.finished}
        return {int(folder.name.removeprefix("seed")): run for folder, run in mine.items()}

    def finished(self) -> list[Run]:
        """All finished long runs, those of settings that are no longer in the plan among them."""
        return [run for run in self._all.values() if run.finished]

    def diverged(self, setting: str) -> bool:
        """Whether a long run of the setting, or all of its sweep, ended with numbers that are not finite."""
        finals = [run for folder, run in self._all.items() if folder.parent.name == setting]
        sweep = [load_run(path) for path in sorted(self.out.glob(f"tune/{setting}/*"))]
        return any(map(_diverged, finals)) or (bool(sweep) and all(map(_diverged, sweep)))

    def scores(self, setting: str) -> pd.DataFrame:
        """A row for every scored edit by (seed, index), a column for every metric after the last edit.

        Generation's exact match is among them, as METRIC_exact, for the edits where it was generated for.
        """
        if setting not in self._scores:
            rows = [{"seed": seed, **edit} for seed, run in self.runs(setting).items() for edit in _edits(run.path)]
            key = ["seed", "index"]
            self._scores[setting] = pd.DataFrame(rows, columns=None if rows else key).set_index(key)
        return self._scores[setting]

    def pooled(self, setting: str, metric: str, *, before: bool = False) -> Estimate | None:
        """A final number of results.json over the seeds, with Wilson's interval for all that was scored."""
        rows = [row for run in self.runs(setting).values() for row in metric_rows(run) if row["metric"] == metric]
        table = pd.DataFrame(rows, columns=["value", "before", "n"], dtype=float)
        table = table.dropna(subset=["before" if before else "value", "n"])
        return pooled(table["before" if before else "value"], table["n"])

    def retained(self, setting: str, share: float = 0.1) -> Estimate | None:
        """ES of the edits that were written in the first tenth of the run, after the last."""
        table = self.scores(setting)
        if "ES" not in table:
            return None
        written = {seed: run.results["counts"]["edits"] for seed, run in self.runs(setting).items()}
        seeds, indices = (table.index.get_level_values(level) for level in ("seed", "index"))
        values = table["ES"][indices < share * seeds.map(written)].dropna()
        return pooled(values, pd.Series(1, index=values.index))

    def downstream(self, setting: str, figure: str = "average/accuracy_new") -> tuple[float, float] | None:
        """A downstream figure before the first edit and after the last, means over the runs that asked the most."""
        runs = list(self.runs(setting).values())
        most = max((run.config["downstream"]["number_of_tests"] for run in runs), default=0)
        lines = [r.results.get("downstream") for r in runs if r.config["downstream"]["number_of_tests"] == most]
        ends = [(number(line[0].get(figure)), number(line[-1].get(figure))) for line in lines if line and len(line) > 1]
        found = pd.DataFrame(ends, columns=["first", "last"], dtype=float).dropna().mean()
        return None if found.isna().any() else (found["first"], found["last"])

    def over_time(self, setting: str, group: str) -> pd.DataFrame:
        """seed, edits written, and the numbers measured then; `group` is `immediate` or `sample`."""
        rows = [
            {"seed": seed, "edits": line["edits"], **line[group]}
            for seed, run in self.runs(setting).items()
            for line in run.events["over_time"]
            if line.get(group)
        ]
        return pd.DataFrame(rows, columns=None if rows else ["seed", "edits"])

    def shifts(self, setting: str) -> pd.DataFrame:
        """seed, step, and the means over sites of the shift's norm and of |cosine to the last shift|."""
        rows = [
            {"seed": seed, "step": line["edits"], "norm": norm, "cosine": abs(cosine) if cosine is not None else None}
            for seed, run in self.runs(setting).items()
            for line in run.events["step"]
            if line["phase"] == "edit"
            for norm, cosine in line["sites"].values()
        ]
        table = pd.DataFrame(rows, columns=["seed", "step", "norm", "cosine"], dtype=float)
        table = table.groupby(["seed", "step"], as_index=False).mean()
        return table.assign(step=table.groupby("seed").cumcount() + 1)


def _edits(run_dir: Path) -> Iterator[dict[str, float]]:
    """The index and the scores of every line of edits.jsonl."""
    path = run_dir / "edits.jsonl"
    if not path.is_file():
        return
    with open(path, encoding="utf-8") as file:
        for edit in map(json.loads, file):
            scores = edit["after"].items()
            exact = {f"{metric}_exact": float(score["exact"]) for metric, score in scores if "exact" in score}
            yield {"index": edit["index"]} | {metric: float(score["tokens"]) for metric, score in scores} | exact


def _diverged(run: Run) -> bool:
    return run.status.get("state") == "failed" and str(run.status.get("error")).startswith("NumericsError")
