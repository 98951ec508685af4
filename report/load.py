"""Read run directories, whatever state they are in: what cannot be read is noted, never an error."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from config.check import ConfigError
from files import printable, regular
from report.metrics import merit, protocol

RECORDS = ("results.json", "metrics.jsonl", "status.json")
NUMBER = int | float | None
# what a run writes under the keys that are read here; a key that is not there is no fault unless it is needed
RESULTS = {"metrics": list, "config": dict, "pre": dict | None, "counts": dict, "downstream": list, "examples": list,
           "load": dict, "retention_by_age": list, "worst": dict}  # fmt: skip
LOAD = {"load": float, "edits": int, "sites": int, "d_k": int}
WORST = {"scored": int, "failed": int, "edits": list}
BAD = {"prompt": str, "target": str, "said": str, "ES": NUMBER, "GS": NUMBER, "LS_agreement": NUMBER}
AGE = {"from": int, "to": int, "n": int, "ES": float, "ES_all": float}
STATUS = {"state": str, "overrides": list, "error": str | None}
ROW = {"metric": str, "protocol": str, "value": NUMBER, "before": NUMBER, "n": NUMBER}
LINE = {"event": str, "edits": int, "step": int, "sample": dict, "immediate": dict, "retention": dict, "sites": dict}
PLACED = {"step": ("sites", "phase"), "evaluate": ("edits",), "over_time": ("edits", "step"), "downstream": ("edits",)}
POINTS = 1000  # of a curve at most


@dataclass
class Run:
    """One run directory: its records as they are, {} or [] where a file is missing."""

    path: Path
    name: str
    results: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    overrides: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """What status.json says; results are a run's last word, so with them it is not running any more."""
        said = self.status.get("state", "no record")
        return "done" if self.results and said in ("running", "no record") else said

    @property
    def finished(self) -> bool:
        """Whether its numbers count: results are there and the run did not end in an error."""
        return bool(self.results) and self.state == "done"

    @property
    def error(self) -> str:
        """What it stopped with; else why it has no numbers that count, or nothing."""
        if self.finished or self.status.get("error"):
            return self.status.get("error") or ""
        if self.results:
            return "it ended otherwise than done"
        if not self.status:
            return "no status.json and no results.json: it stopped before it began, or was killed"
        return "still running, or killed: " * (self.state == "running") + "it has not written results.json"

    @property
    def before(self) -> dict[str, float]:
        """The scores before any edit: of results.json; of a run that has none its first evaluation."""
        first = next((line for line in self.events["evaluate"] if line["edits"] == 0), {})
        rows = {row["metric"]: row.get("before") for row in self.results.get("metrics", [])}
        told = rows | (self.results.get("pre") or {}) if self.results else first
        return {name: value for name, value in told.items() if name not in ("event", "edits") and value is not None}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The final table as in results.json; of a run that did not end the names and values before editing."""
        before = [{"metric": name, "protocol": protocol(name), "before": value} for name, value in self.before.items()]
        return self.results.get("metrics") or before

    @property
    def scores(self) -> dict[str, float | None]:
        """The final numbers by metric."""
        return {row["metric"]: row.get("value") for row in self.rows}

    def merit(self, by: str = "gain") -> float | None:
        """The merit of a finished run by its final numbers (report.metrics.merit); None of any other."""
        return merit(self.scores, self.before, by) if self.finished else None

    def over_time(self, group: str, names: Iterable[str], over: str = "edits") -> dict[str, pd.Series]:
        """What was measured while editing: of the fixed sample (group "sample") or of each batch ("immediate")."""
        lines = [line[group] | {over: line[over]} for line in self.events["over_time"] if line.get(group)]
        return curves(lines, names, over)

    def downstream(self) -> dict[str, pd.Series]:
        """The f1 of the likeliest choice per task, against edits; the average last."""
        lines = self.events["downstream"]
        names = dict.fromkeys(key for line in lines for key in line if key.endswith("/f1_new"))
        return {name.partition("/")[0]: curve for name, curve in curves(lines, names, "edits").items()}


def thin(count: int, limit: int = POINTS) -> list[int]:
    """At most `limit` of so many places, evenly spread, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()


def curves(lines: Sequence[Mapping[str, Any]], names: Iterable[str], over: str | None = None) -> dict[str, pd.Series]:
    """A curve per name that has any number, over what the lines call `over` (else over 1, 2, ...); thinned.

    Its index is x; NaN in y where nothing was measured.
    """
    table = pd.DataFrame(lines, index=[line[over] for line in lines] if over else range(1, len(lines) + 1))
    table = table.iloc[thin(len(table))].reindex(columns=list(names)).astype(float).dropna(axis="columns", how="all")
    return {str(name): curve for name, curve in table.items()}


def run_folders(path: Path) -> list[Path]:
    """The folder itself where it holds a record of a run, else those of a sweep's jobs in order of their numbers.

    Jobs that left nothing but .hydra are among them.

    Raises:
        ConfigError: it holds neither a run nor a sweep.
    """
    if any((path / name).is_file() for name in RECORDS):
        return [path]
    jobs = {record.parent for name in (*RECORDS, ".hydra") for record in path.rglob(name)}
    if not jobs:
        what = "holds none of " + ", ".join(RECORDS) if path.is_dir() else "no such folder"
        raise ConfigError(f"report {path}: {what}; name a run directory or a sweep directory")
    return sorted(jobs, key=lambda job: (len(job.name), job))


def load_runs(run_dirs: Sequence[Path]) -> list[Run]:
    """Read runs, each once; a sweep directory stands for its jobs. Raises ConfigError as run_folders does."""
    paths = dict.fromkeys(path for folder in run_dirs for path in run_folders(folder.resolve()))
    # the shortest endings of the paths that tell them apart
    endings = (["/".join(path.parts[-depth:]) for path in paths] for depth in itertools.count(1))
    names = next(names for names in endings if len(set(names)) == len(names))
    return [load_run(path, name) for path, name in zip(paths, names, strict=True)]


def load_run(path: Path, name: str = "") -> Run:
    """Read one run directory."""
    run = Run(path, printable(name or path.resolve().name))
    run.results = _read(run, "results.json", _results)
    run.status = _read(run, "status.json", lambda text: _shaped(json.loads(text), STATUS))
    run.overrides = list(run.status.get("overrides") or _read(run, ".hydra/overrides.yaml", yaml.safe_load))
    run.config = run.results.get("config") or _read(run, ".hydra/config.yaml", lambda t: _shaped(yaml.safe_load(t), {}))
    broken = 0
    for text in _read(run, "metrics.jsonl", str.splitlines):
        try:
            line = clean(_line(text))
            run.events[line["event"]].append(line)
        except (ValueError, RecursionError):  # cut off by a crash, or not a run's
            broken += 1
    if broken:
        run.notes.append(f"metrics.jsonl: {broken} broken line{'s' * (broken > 1)} passed over")
    if not run.results and run.state == "done":
        run.notes.append("results.json is missing or empty: nothing says how the run ended")
    return run


def clean(tree: Any) -> Any:
    """The same content with every text as files.printable shows it: names and prompts are other people's."""
    if isinstance(tree, dict):
        return {clean(key): clean(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [clean(value) for value in tree]
    return printable(tree) if isinstance(tree, str) else tree


def _shaped(found: Any, kinds: Mapping[str, Any], needed: Iterable[str] = ()) -> dict[str, Any]:
    """A mapping whose values are of the kinds that a run writes under these keys, the needed ones there.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(found, dict):
        raise ValueError("it is not what a run writes")
    for key in kinds.keys() & {*found, *needed}:
        if not isinstance(found.get(key), kinds[key]):
            raise ValueError(f"its {key} is not what a run writes")
    return found


def _results(text: str) -> dict[str, Any]:
    found = _shaped(json.loads(text), RESULTS)
    for row in found.get("metrics", []):
        _shaped(row, ROW, ("metric", "protocol"))
    if found.get("load"):
        _shaped(found["load"], LOAD, LOAD)
    if found.get("worst"):
        for row in _shaped(found["worst"], WORST, WORST)["edits"]:
            _shaped(row, BAD, BAD)
    for row in found.get("retention_by_age", []):
        _shaped(row, AGE, AGE)
    _shaped(found.get("pre") or {}, dict.fromkeys(found.get("pre") or (), NUMBER))
    return found


def _line(text: str) -> dict[str, Any]:
    line = _shaped(json.loads(text), LINE, ("event",))
    return _shaped(line, LINE, PLACED.get(line["event"], ()))


def _read(run: Run, name: str, parse: Callable[[str], Any]) -> Any:
    try:
        return clean(parse(regular(run.path / name).read_text(encoding="utf-8"))) or {}
    except FileNotFoundError:
        return {}
    except (OSError, RecursionError, ValueError, yaml.YAMLError) as error:
        run.notes.append(printable(f"{name} cannot be read: {error}"))
        return {}
