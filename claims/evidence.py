"""What the long runs left: by setting and seed, each edit's scores, and means over the seeds."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import pandas as pd

from lifelong.status import read_status
from report.load import Run, load_run

from .runner import diverged
from .stats import Estimate, pooled

MAIN = ("ES", "GS", "LS")


def minutes(run_dir: Path) -> float:
    """How long a finished run took; 0 where it did not finish."""
    status = read_status(run_dir)
    if status.get("state") != "done":
        return 0.0
    return (datetime.fromisoformat(status["ended"]) - datetime.fromisoformat(status["started"])).total_seconds() / 60


class Evidence:
    """The finished long runs below `out`, by setting and seed; scores are read when they are asked for, once."""

    def __init__(self, out: Path) -> None:
        self.out, self._scores = out, dict[str, pd.DataFrame]()
        self.runs: dict[str, dict[int, Run]] = defaultdict(dict)
        for folder in sorted(out.glob("final/*/seed*")):
            run = load_run(folder)
            if run.finished:
                self.runs[folder.parent.name][int(folder.name.removeprefix("seed"))] = run

    def diverged(self, setting: str) -> bool:
        """Whether a long run of the setting, or all of its sweep, ended with numbers that are not finite."""
        finals, sweep = (
            [diverged(folder) for folder in self.out.glob(f"{stage}/{setting}/*")] for stage in ("final", "tune")
        )
        return any(finals) or (bool(sweep) and all(sweep))

    def scores(self, setting: str) -> pd.DataFrame:
        """A row for every scored edit by (seed, edit), a column for every metric after the last edit.

        Generation's exact match is among them, as METRIC_exact, for the edits where it was generated for.
        """
        if setting not in self._scores:
            rows = [{"seed": seed, **edit} for seed, run in self.runs[setting].items() for edit in _edits(run.path)]
            table = pd.DataFrame(rows, columns=None if rows else ["seed", "edit"])
            self._scores[setting] = table.set_index(["seed", "edit"])
        return self._scores[setting]

    def pooled(self, setting: str, metric: str, side: str = "value") -> Estimate | None:
        """A final number (`before`: one before any edit) over the seeds, with Wilson's interval for what was scored."""
        rows = [row for run in self.runs[setting].values() for row in run.rows if row["metric"] == metric]
        table = pd.DataFrame(rows, columns=[side, "n"], dtype=float).dropna()
        return pooled(table[side], table["n"])

    def retained(self, setting: str) -> Estimate | None:
        """ES of the edits that were written in the first tenth of the run, after the last."""
        table = self.scores(setting).reset_index().reindex(columns=["seed", "edit", "ES"]).dropna()
        written = table["seed"].map({seed: run.results["counts"]["edits"] for seed, run in self.runs[setting].items()})
        early = table[table["edit"] < 0.1 * written].assign(n=1)
        return pooled(early["ES"], early["n"])

    def downstream(self, setting: str) -> str:
        """The tasks' mean accuracy before the first edit and after the last, and of how many questions each is.

        Means over the runs that asked the most.
        """
        asked: dict[int, list[list[float | None]]] = defaultdict(list)
        for run in self.runs[setting].values():
            told, lines = run.config["downstream"], run.results.get("downstream") or []
            ends = [line.get("average/accuracy_new") for line in (*lines[:1], *lines[-1:])]
            asked[told["number_of_tests"] * len(told["tasks"])] += [ends] if len(lines) > 1 and None not in ends else []
        found = pd.DataFrame(asked[max(asked)], columns=["first", "last"], dtype=float).mean()
        return "-" if found.isna().any() else f"{found['first']:.3f}, {found['last']:.3f} ({max(asked)})"

    def over_time(self, setting: str, group: str) -> pd.DataFrame:
        """seed, edits written, and the numbers measured then; `group` is `immediate` or `sample`."""
        lines = [(seed, line) for seed, run in self.runs[setting].items() for line in run.events["over_time"]]
        rows = [{"seed": seed, "edits": line["edits"], **line[group]} for seed, line in lines if line.get(group)]
        return pd.DataFrame(rows, columns=None if rows else ["seed", "edits"])

    def shifts(self, setting: str) -> pd.DataFrame:
        """seed, step, and the means over sites of the shift's norm and of |cosine to the last shift|."""
        lines = [(seed, line) for seed, run in self.runs[setting].items() for line in run.events["step"]]
        sites = [(seed, ln["edits"], *ln["sites"].values()) for seed, ln in lines if ln["phase"] == "edit"]
        rows = [(seed, step, site["shift_norm"], site["cosine"]) for seed, step, *found in sites for site in found]
        table = pd.DataFrame(rows, columns=["seed", "step", "norm", "cosine"], dtype=float)
        table = table.assign(cosine=table["cosine"].abs()).groupby(["seed", "step"], as_index=False).mean()
        return table.assign(step=table.groupby("seed").cumcount() + 1)


def _edits(run_dir: Path) -> Iterator[dict[str, float]]:
    """The index and the scores of every line of edits.jsonl."""
    path = run_dir / "edits.jsonl"
    with open(path, encoding="utf-8") if path.is_file() else nullcontext(()) as lines:
        for edit in map(json.loads, lines):
            scores = edit["after"].items()
            exact = {f"{metric}_exact": float(score["exact"]) for metric, score in scores if "exact" in score}
            yield {"edit": edit["index"]} | {metric: float(score["tokens"]) for metric, score in scores} | exact
