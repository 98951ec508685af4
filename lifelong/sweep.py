"""The frame around a sweep: what must be there before it starts; table, report and exit status at its end.

Hydra calls `SweepStart` before a multirun (hydra.callbacks in config/config.yaml); main.py runs inside `swept`.
The jobs themselves are lifelong.job's.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError

from config.compose import one_line
from config.errors import ConfigError
from files import host
from lifelong.status import STATUS, Listener, end_status, held, new_status, read_status
from lifelong.torchrun import ONE_PROCESS, torchrun_ranks

log = logging.getLogger(__name__)
PROJECT = Path(__file__).resolve().parent.parent
LOCK = ".lock"  # held in the sweep's folder by its process, in a job's folder by the job
STOP = ".stop"  # in the sweep's folder: all of its jobs are to end
USER_DEVICES = "SWEEP_CUDA_VISIBLE_DEVICES"  # what CUDA_VISIBLE_DEVICES was before a launcher changed it
NOT_STARTED = "not started: the sweep was stopped"


def prefer_our_presets() -> None:
    """Let config/hydra stand for the presets that plugins register under the same names.

    Hydra would take theirs for the schemas of ours and warn.
    """
    Plugins.instance()  # the plugins register what they have
    for preset in (PROJECT / "config" / "hydra" / "launcher").iterdir():
        ConfigStore.instance().repo["hydra"]["launcher"].pop(preset.name, None)


class SweepStart(Callback):
    """Hydra's callback: remembers the sweep that starts, for `swept`."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Take the run directory for this process, or refuse (exit status 1) before Hydra writes into it."""
        if config.get("undo") is not None:  # it has none of its own
            return
        HydraConfig.instance().set_config(config)  # as Hydra does next: the directory may name hydra's own keys
        with one_line():
            run_dir, resumes = Path(config.hydra.run.dir), config.resume is not None
            if resumes and not (run_dir / STATUS).exists():  # what Hydra wrote of it may be cut, which no one would see
                raise ConfigError(f"resume={config.resume}: was stopped before it began: no {STATUS}; start it again")
            self._taken = held(run_dir, resumes=resumes)
            self._taken.__enter__()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Get ready for the jobs, or refuse what none of them could run with (exit status 1)."""
        global current
        with one_line():
            if torchrun_ranks()[1] > 1:
                raise ConfigError(f"a sweep (-m) {ONE_PROCESS}; hydra/launcher has jobs run beside each other")
            check_launch(config.hydra)
            with suppress(InterpolationToMissingValueError):  # only a job knows its number
                OmegaConf.select(config, "hydra.sweep.subdir")
            folder = Path(config.hydra.sweep.dir).absolute()
            check_same(folder, config)
            current = Sweep(folder, report=config.report)
        # workers of submitit unpickle our modules, wherever they are started from
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
        os.environ[USER_DEVICES] = os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def check_launch(hydra: DictConfig) -> None:
    """Refuse, by a ConfigError, a launcher that is not installed, and numbers of jobs and threads that are none."""
    package = ".".join(hydra.launcher["_target_"].split(".")[:2])  # such as hydra_plugins.hydra_joblib_launcher
    if not (importlib.util.find_spec(package.partition(".")[0]) and importlib.util.find_spec(package)):
        name, part = hydra.runtime.choices["hydra/launcher"], package.split("_")[2]
        raise ConfigError(f"hydra/launcher={name}: its plugin is not installed; sh run.sh install {part}")
    for key in ("n_jobs", "cpus_per_task"):
        value = hydra.launcher.get(key)
        # joblib counts down from the cores below 0
        if value is not None and (not isinstance(value, int) or value == 0 or (value < 0 and key != "n_jobs")):
            raise ConfigError(f"hydra.launcher.{key}={value}: must be a whole number above 0")


def check_same(folder: Path, config: DictConfig) -> None:
    """Refuse, by a ConfigError, a folder with jobs of another sweep; the same (words, grid, folders) goes on in it."""

    def asked(config: Any) -> list[Any]:
        hydra: Any = OmegaConf.to_container(config.hydra)
        return [hydra["overrides"]["task"], hydra["sweeper"].get("params"), hydra["sweep"]["subdir"]]

    before = folder / "multirun.yaml"
    if any(folder.rglob(STATUS)) and not (before.exists() and asked(OmegaConf.load(before)) == asked(config)):
        raise ConfigError(f"hydra.sweep.dir={folder}: holds another sweep or run; name another folder")


def free(lock: Path) -> bool:
    """Whether no living process holds a lock, but for an instant to look at it as we do."""
    with suppress(Timeout), FileLock(lock).acquire(timeout=0.05):
        return True
    return False


def is_gone(folder: Path, launcher: Mapping[str, Any]) -> bool:
    """Whether a sweep's process died; jobs of Slurm may outlive it."""
    return "Slurm" not in launcher["_target_"] and free(folder / LOCK)


def is_over(folder: Path, launcher: Mapping[str, Any]) -> bool:
    """Whether a sweep's jobs are to end: it was stopped, or its process died."""
    return (folder / STOP).exists() or is_gone(folder, launcher)


class Sweep:
    """A multirun of this process; a ConfigError where its folder cannot be written, or runs are at work there."""

    def __init__(self, folder: Path, *, report: bool) -> None:
        self.folder, self.report = folder, report
        self.signum: int | None = None
        self._lock = FileLock(folder / LOCK)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            busy = [path.parent for path in folder.rglob(LOCK) if not free(path)]
            if busy:
                raise ConfigError(f"hydra.sweep.dir={folder}: {busy[0]} is at work; wait, or name another folder")
            self._lock.acquire(timeout=1)
        except OSError as error:
            raise ConfigError(f"hydra.sweep.dir={folder}: cannot be written ({error}); name another folder") from error
        (folder / STOP).unlink(missing_ok=True)
        self._listener = Listener(self._stop).__enter__()

    def _stop(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        (self.folder / STOP).touch()
        print("stopping: the jobs finish their step and save; once more to leave at once", file=sys.stderr)
        self._listener.give_back()

    def finish(self) -> int:
        """Settle what is open, print the outcome, write the report; the exit status."""
        jobs = self.settled()
        (self.folder / STOP).unlink(missing_ok=True)
        self._listener.give_back()
        if jobs:
            self._show(jobs)
        self._lock.release()
        return 128 + self.signum if self.signum else int(any(status["state"] != "done" for status in jobs.values()))

    def settled(self) -> dict[Path, dict[str, Any]]:
        """The status of every job folder, once none of this machine runs any more; those that died are marked.

        A launcher that broke over one job may have left others at work.
        """
        state = "interrupted" if self.signum else "failed"
        given = {path.parent.parent: path for path in self.folder.rglob(".hydra/overrides.yaml")}
        folders, jobs = given.keys() | {path.parent for path in self.folder.rglob(STATUS)}, {}
        for folder in sorted(folders, key=lambda folder: (len(folder.name), folder)):
            while (status := read_status(folder)).get("host") == host() and not free(folder / LOCK):
                time.sleep(0.2)
            if not status:
                status = new_status([str(word) for word in OmegaConf.load(given[folder])], None)
                end_status(folder, status, state, NOT_STARTED if self.signum else "died before it started")
            elif status["state"] == "running" and status["host"] == host():
                end_status(folder, status, state, "its process ended without a word")
            jobs[folder] = read_status(folder)
        return jobs

    def _show(self, jobs: dict[Path, dict[str, Any]]) -> None:
        try:
            import report  # figures and tables load only now

            print(report.sweep_table(self.folder))
            if self.report:
                print(f"report: {report.make([self.folder])}")
        except Exception:  # results must not be lost to their presentation
            log.exception("the sweep's report could not be written; its results are in %s", self.folder)
        done = sum(status["state"] == "done" for status in jobs.values())
        print(f"{done} of {len(jobs)} jobs done; more of each in {self.folder}/JOB/{STATUS}", flush=True)


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
