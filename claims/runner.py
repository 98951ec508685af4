"""Run a plan, some main.py at a time: what is done stays, what was stopped goes on, what fails is noted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from config.check import RunError
from data.source import PROJECT
from files import write_json
from lifelong.status import read_status

from .choose import Choice, choose
from .inputs import write_data
from .plan import Job, Scale, Setting, chosen_settings, final, settings, tuning
from .timing import cores, estimate, machine

DIVERGED = "NumericsError"
Say = Callable[[str], None]


def tell(line: str) -> None:
    """Print a line in one piece, whatever other threads print."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def state(job: Job, out: Path) -> str:
    """done, diverged (numbers that are not finite: a result too), stopped (can go on), or new."""
    status = read_status(out / job.path)
    overrides = [word for word in status.get("overrides", []) if not word.startswith("resume=")]
    if overrides != list(job.words):
        return "new"
    if status["state"] == "done":
        return "done"
    if status["state"] == "failed":
        return "diverged" if str(status.get("error")).startswith(DIVERGED) else "new"
    return "stopped" if (out / job.path / ".hydra" / "overrides.yaml").is_file() else "new"


def execute(job: Job, out: Path, processes: Processes | None = None) -> str:
    """Run one job where it is not done; returns its state then: done, diverged or failed."""
    folder, found = out / job.path, state(job, out)
    if found in ("done", "diverged"):
        return found
    if found == "new":
        shutil.rmtree(folder, ignore_errors=True)
        words = [*job.words, f"hydra.run.dir={folder}"]
    else:
        words = [f"resume={folder}"]
    folder.mkdir(parents=True, exist_ok=True)
    (processes or Processes(1)).call([sys.executable, str(PROJECT / "main.py"), *words], folder / "terminal.txt")
    ended = state(job, out)
    if ended in ("done", "diverged"):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return ended
    return "failed"


class Processes:
    """The commands that run now, `at_once` of them, each with its share of the cores."""

    def __init__(self, at_once: int) -> None:
        self.threads = max(1, cores() // at_once)
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def call(self, command: Sequence[str], terminal: Path) -> None:
        """Run a command, what it prints going to a file. Raises RunError where no more may start."""
        env = {"OMP_NUM_THREADS": str(self.threads)} | os.environ
        with open(terminal, "a", encoding="utf-8") as file:
            if self.stopped:
                raise RunError("stopped")
            child = subprocess.Popen(command, cwd=PROJECT, stdout=file, stderr=file, start_new_session=True, env=env)
            self.running.add(child)
            if self.stopped:  # stop() may have looked before this one was there
                child.terminate()
            child.wait()
            self.running.discard(child)

    def stop(self) -> None:
        """Start no more; let those that run save their state and end."""
        self.stopped = True
        for child in list(self.running):
            child.terminate()


class Runner:
    """Runs the jobs of some parts in `out`; `say` is told a line before and after each."""

    def __init__(
        self, scale: Scale, out: Path, extra: Sequence[str] = (), say: Say = tell, at_once: int | None = None
    ) -> None:
        self.scale, self.out, self.extra, self.say = scale, out.resolve(), tuple(extra), say
        self.at_once = at_once or min(cores(), 4)
        self.processes = Processes(self.at_once)
        self.failed: list[str] = []
        self.left: list[str] = []

    def prepare(self) -> None:
        """Write the record files, the known facts and what the page says about this machine."""
        write_data(self.out, self.scale)
        knowns = self.out / "knowns.json"
        if not knowns.is_file():
            words = [f"experiment={self.scale.experiment}", *self.extra]
            command = [sys.executable, "-m", "claims.knowns", str(knowns), *words]
            if subprocess.call(command, cwd=PROJECT):
                raise RunError(f"{knowns} could not be made; the message above says why")
        write_json(
            self.out / "claims.json",
            {"scale": self.scale.name, "extra": self.extra, "at_once": self.at_once} | machine(),
        )

    @property
    def knowns(self) -> bool:
        """Whether the unedited model knows anything."""
        path = self.out / "knowns.json"
        return path.is_file() and path.stat().st_size > 10

    def sweep(self, setting: Setting) -> list[Job]:
        """The jobs of a setting's sweep, or of the one whose choice it takes."""
        tuned = settings(self.scale)[setting.tuned_as] if setting.tuned_as else setting
        return tuning(self.scale, tuned, self.out, self.extra)

    def choice(self, setting: Setting) -> Choice | None:
        """What the setting's sweep chose; None while it is not done."""
        tuned = settings(self.scale)[setting.tuned_as] if setting.tuned_as else setting
        return choose(tuned, self.sweep(setting), self.out)

    def final(self, setting: Setting, seed: int) -> Job | None:
        """The setting's long run on a seed; None while its sweep has not chosen."""
        found = self.choice(setting)
        if found is None:
            return None
        return final(self.scale, setting, found.words, self.out, seed, self.knowns, self.extra)

    def seeds(self, setting: Setting) -> range:
        """The seeds that a setting's long run is made on."""
        return range(self.scale.seeds if setting.headline else 1)

    def run(self, parts: Sequence[str]) -> list[str]:
        """The sweeps, then every setting on the first seed, then the other seeds; returns the jobs that failed."""
        chosen = list(chosen_settings(self.scale, parts))
        sweeps = list(dict.fromkeys(job for setting in chosen for job in self.sweep(setting)))
        finals = [
            (setting, seed) for seed in range(self.scale.seeds) for setting in chosen if seed in self.seeds(setting)
        ]
        self.left = [job.path for job in sweeps] + [f"final/{setting.name}/seed{seed}" for setting, seed in finals]
        self._all(sweeps)
        self._all(filter(None, [self._final(*pair) for pair in finals]))
        return self.failed

    def _all(self, jobs: Iterable[Job]) -> None:
        """Run jobs, some at a time, in their order; when this process is stopped they may save their state first."""
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                tasks = [pool.submit(self._one, job) for job in jobs]
                for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                    task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.processes.stop()
                raise

    def _final(self, setting: Setting, seed: int) -> Job | None:
        job = self.final(setting, seed)
        if job is None:
            self.say(f"final/{setting.name}/seed{seed}: not run: its sweep has no point that ended well")
            self.left.remove(f"final/{setting.name}/seed{seed}")
        return job

    def _one(self, job: Job) -> None:
        known = state(job, self.out)
        if known in ("new", "stopped"):
            self.say(f"{len(self.left)} runs left{estimate(self.left, self.out, self.at_once)}: {job.path}")
        ended = execute(job, self.out, self.processes)
        if self.processes.stopped and ended == "failed":  # stopped with this process: it goes on another time
            return
        self.left.remove(job.path)
        if ended == "failed":
            self.failed.append(job.path)
            error = read_status(self.out / job.path).get("error") or "see terminal.txt there"
            self.say(f"{job.path}: failed: {error}")
        elif ended == "diverged":
            self.say(f"{job.path}: its numbers stopped being finite")
