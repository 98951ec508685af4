"""The frame around a sweep: what must be there before it starts; table, report and exit status at its end.

Hydra calls `SweepStart` before a multirun (hydra.callbacks in config/config.yaml); main.py runs inside `swept`.
The jobs themselves are lifelong.sweep_job's.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from config.errors import ConfigError
from files import alive, host
from lifelong.status import STATUS, Listener, end_status, held, new_status, now, read_status

log = logging.getLogger(__name__)
PROJECT = Path(__file__).resolve().parent.parent
STOP = ".stop"  # in the sweep's folder: the number of the signal that stops all of its jobs
USER_DEVICES = "SWEEP_CUDA_VISIBLE_DEVICES"  # what CUDA_VISIBLE_DEVICES was before a launcher changed it
NOT_STARTED = "not started: the sweep was stopped"
PLUGINS = {
    "hydra_plugins.hydra_joblib_launcher": "joblib",
    "hydra_plugins.hydra_submitit_launcher": "submitit",
}


def prefer_our_presets() -> None:
    """Let config/hydra stand for the presets that plugins register under the same names.

    Hydra would take theirs for the schemas of ours and warn.
    """
    Plugins.instance()  # the plugins register what they have
    for folder in (PROJECT / "config" / "hydra").iterdir():
        registered = ConfigStore.instance().repo["hydra"].get(folder.name, {})
        for preset in folder.glob("*.yaml"):
            registered.pop(preset.name, None)


class SweepStart(Callback):
    """Hydra's callback: remembers the sweep that starts, for `swept`."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Take the run directory for this process, or refuse (exit status 1) before Hydra writes into it."""
        HydraConfig.instance().set_config(config)  # as Hydra does next: the directory may name hydra's own keys
        run_dir, resumes = Path(config.hydra.run.dir), config.resume is not None
        try:
            if resumes and not (run_dir / STATUS).exists():  # what Hydra wrote of it may be cut, which no one would see
                raise ConfigError(f"resume={config.resume}: was stopped before it had begun; start it again")
            self._taken = held(run_dir, resumes=resumes)
            self._taken.__enter__()
        except ConfigError as error:
            sys.exit(f"error: {error}")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a launcher or sweeper that is not installed (exit status 1); get ready."""
        global current
        for part in ("launcher", "sweeper"):
            refusal = missing_plugin(config.hydra[part].get("_target_", ""))
            if refusal:
                sys.exit(f"error: hydra/{part}={config.hydra.runtime.choices[f'hydra/{part}']}: {refusal}")
        # workers of submitit unpickle our modules, wherever they are started from
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
        os.environ[USER_DEVICES] = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        current = Sweep(Path(config.hydra.sweep.dir).absolute(), report=config.report)


def missing_plugin(target: str) -> str | None:
    """What to install for a launcher's or sweeper's class; None where it is there."""
    package = ".".join(target.split(".")[:2])
    with suppress(ModuleNotFoundError):
        if package not in PLUGINS or importlib.util.find_spec(package):
            return None
    return f"its plugin is not installed; sh run.sh install {PLUGINS[package]}"


class Sweep:
    """A multirun of this process: where it is, when it started, whether it was asked to stop."""

    def __init__(self, folder: Path, *, report: bool) -> None:
        self.folder, self.report = folder, report
        self.started = datetime.fromisoformat(now())
        self.signum: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STOP).unlink(missing_ok=True)
        self._listener = Listener(self._stop)

    def _stop(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        (self.folder / STOP).write_text(str(signum))
        print("stopping: the jobs finish their step and save; once more to leave at once", file=sys.stderr)
        self._listener.give_back()

    def finish(self) -> int:
        """Settle what is open, print the outcome, write the report; the exit status."""
        jobs = self.settled()
        (self.folder / STOP).unlink(missing_ok=True)
        self._listener.give_back()
        if jobs and self.report:
            self._write_report()
        if jobs:
            print(summary(jobs), flush=True)
        if self.signum is not None:
            return 128 + self.signum
        return int(any(status["state"] != "done" for status in jobs.values()))

    def settled(self) -> dict[Path, dict[str, Any]]:
        """The status of every job folder, once none of this machine runs any more; those that died are marked.

        A launcher that broke over one job may have left others at work.
        """
        state = "interrupted" if self.signum else "failed"
        for folder in self._folders():
            status = read_status(folder)
            while status.get("state") == "running" and status["host"] == host() and alive(status["pid"]):
                time.sleep(0.2)
                status = read_status(folder)
            if not status:
                unstarted = new_status(saved_overrides(folder), None)
                end_status(folder, unstarted, state, NOT_STARTED if self.signum else "died before it started")
            elif status["state"] == "running" and status["host"] == host():
                end_status(folder, status, state, "its process ended without a word")
        return {folder: read_status(folder) for folder in self._folders()}

    def _folders(self) -> list[Path]:
        """Job folders of this sweep, by number; those of an earlier one in the same place are passed over."""
        found = {path.parent for name in (STATUS, ".hydra") for path in self.folder.rglob(name)}
        since = self.started.timestamp()
        new = [f for f in found if any(p.exists() and p.stat().st_mtime >= since for p in (f / STATUS, f / ".hydra"))]
        return sorted(new, key=lambda folder: (len(folder.name), folder))

    def _write_report(self) -> None:
        try:
            import report  # figures and tables load only now

            page = report.make([self.folder])
            print(f"{report.sweep_table(self.folder)}\nreport: {page}")
        except Exception:  # results must not be lost to their presentation
            log.exception("the sweep's report could not be written; its results are in %s", self.folder)


current: Sweep | None = None


@contextmanager
def swept() -> Iterator[None]:
    """Around Hydra: whatever becomes of a multirun, its end is accounted for (exit status: Sweep.finish)."""
    try:
        yield
    finally:
        if current is not None:
            code = current.finish()
            if code and not isinstance(sys.exception(), Exception):
                sys.exit(code)


def saved_overrides(folder: Path) -> list[str]:
    """What Hydra wrote down of a job's command line."""
    path = folder / ".hydra" / "overrides.yaml"
    return [str(word) for word in OmegaConf.load(path)] if path.is_file() else []


def summary(jobs: dict[Path, dict[str, Any]]) -> str:
    """How many jobs are done, and a line for each that is not: what was special about it, what happened, where."""
    words = [set(status["overrides"]) for status in jobs.values()]
    common = set.intersection(*words) if len(words) > 1 else set()
    lines = [f"{sum(status['state'] == 'done' for status in jobs.values())} of {len(jobs)} jobs done"]
    for folder, status in jobs.items():
        if status["state"] != "done":
            special = " ".join(word for word in status["overrides"] if word not in common)
            error = f": {status['error'].splitlines()[0]}" if status["error"] else ""
            lines.append(f"job {folder.name} ({special}) {status['state']}{error}; see {folder / STATUS}")
    return "\n".join(lines)
