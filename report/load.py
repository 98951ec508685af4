"""Read run directories, whatever state they are in: what cannot be read is noted, never an error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from config.check import ConfigError

RECORDS = ("results.json", "metrics.jsonl", "status.json")
EVENTS = ("evaluate", "step", "train", "downstream", "over_time")


@dataclass
class Run:
    """One run directory: its records as they are, {} or [] where a file is missing."""

    path: Path
    name: str
    results: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in EVENTS})
    overrides: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """What status.json says; results are a run's last word, so with them it is not running any more."""
        said = str(self.status.get("state") or "no record")
        return "done" if self.results and said in ("running", "no record") else said

    @property
    def finished(self) -> bool:
        """Whether its numbers count: results are there and the run did not end in an error."""
        return bool(self.results) and self.state == "done"

    @property
    def error(self) -> str:
        """What it stopped with; else why it has no numbers that count, or nothing."""
        if self.status.get("error") or self.finished:
            return str(self.status.get("error") or "")
        if not self.status and not self.results:
            return "no status.json and no results.json: it stopped before it began, or was killed"
        killed = "still running, or killed: " if self.state == "running" else ""
        return "it ended otherwise than done" if self.results else f"{killed}it has not written results.json"

    @property
    def date(self) -> str:
        """When it started, to the minute."""
        return str(self.status.get("started") or "")[:16].replace("T", " ")

    def named(self, *keys: str) -> str | None:
        """A value of the configuration as text, or None."""
        value: Any = self.config
        for key in keys:
            value = (value or {}).get(key)
        return None if value is None else str(value)


def number(value: Any) -> float | None:
    """A finite number as it is; anything else as None."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None


def run_folders(path: Path) -> list[Path]:
    """The folder itself where it holds a record of a run, else the job folders of a sweep in order of their numbers.

    Jobs that left nothing but .hydra are among them.
    """

    def is_run(folder: Path) -> bool:
        return any((folder / name).is_file() for name in RECORDS)

    if is_run(path) or not path.is_dir():
        return [path] if is_run(path) else []
    children = [child for child in path.iterdir() if child.is_dir()]
    found = [child for child in children if is_run(child) or (child / ".hydra").is_dir()]
    if not found:  # hydra.sweep.subdir may have named the jobs by group/job
        found = [job for child in children for job in child.iterdir() if job.is_dir() and is_run(job)]
    return sorted(found, key=lambda job: (not job.name.isdigit(), int(job.name) if job.name.isdigit() else 0, str(job)))


def load_runs(run_dirs: Sequence[Path]) -> list[Run]:
    """Read runs; a sweep directory stands for its jobs.

    Raises:
        ConfigError: no folder given, or one that holds neither a run nor a sweep.
    """
    paths: list[Path] = []
    for folder in run_dirs:
        found = run_folders(folder)
        if not found:
            what = "holds none of " + ", ".join(RECORDS) if folder.is_dir() else "no such folder"
            raise ConfigError(f"report {folder}: {what}; name a run directory or a sweep directory")
        paths += [path for path in found if path not in paths]
    if not paths:
        raise ConfigError("report: no run directory given; name at least one")
    return [load_run(path, name) for path, name in zip(paths, _short_names(paths), strict=True)]


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest endings of the paths that tell them apart."""
    parts = [path.resolve().parts for path in paths]
    endings = (["/".join(part[-depth:]) for part in parts] for depth in range(1, max(map(len, parts)) + 1))
    return next((names for names in endings if len(set(names)) == len(names)), [str(path) for path in paths])


def load_run(path: Path, name: str = "") -> Run:
    """Read one run directory."""
    run = Run(path, name or path.resolve().name)
    run.results = _read(run, "results.json", json.loads)
    run.status = _read(run, "status.json", json.loads)
    words = run.status.get("overrides") or _read(run, ".hydra/overrides.yaml", yaml.safe_load)
    run.overrides = [str(word) for word in words]
    run.config = run.results.get("config") or _read(run, ".hydra/config.yaml", yaml.safe_load)
    for line in _lines(run):
        if line.get("event") in run.events:
            run.events[line["event"]].append(_slim(line))
    if not run.results and run.state == "done":
        run.notes.append("results.json is missing or empty: nothing says how the run ended")
    return run


def _read(run: Run, name: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse((run.path / name).read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        run.notes.append(f"{name} cannot be read: {error}")
        return {}


def _lines(run: Run) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl; those cut off by a crash are counted in the notes."""
    path, bad = run.path / "metrics.jsonl", 0
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                yield json.loads(text)
            except ValueError:
                bad += 1
    if bad:
        run.notes.append(f"metrics.jsonl: {bad} broken line{'s' if bad > 1 else ''} passed over")


def _slim(line: dict[str, Any]) -> dict[str, Any]:
    """A step without what no figure shows, its sites as (norm, cosine): a run may have many thousand steps."""
    if line["event"] != "step":
        return line
    sites = {name: (number(site["shift_norm"]), number(site["cosine"])) for name, site in line["sites"].items()}
    return {"phase": line["phase"], "edits": line["edits"], "sites": sites}
