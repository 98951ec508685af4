"""Run a plan, some main.py at a time: what is done stays, what was stopped goes on, what fails is noted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from files import write_json
from lifelong.process import Processes, run_python
from lifelong.status import read_status

from .choose import Choice, choose
from .inputs import write_data
from .plan import Job, Scale, Setting, chosen_settings, final, settings, tuning
from .timing import cores, estimate, machine

DIVERGED = "NumericsError"


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


class Runner:
    """Runs the jobs of some parts in `out`; `say` is told a line before and after each."""

    def __init__(
        self,
        scale: Scale,
        out: Path,
        extra: Sequence[str] = (),
        say: Callable[[str], None] = tell,
        at_once: int | None = None,
    ) -> None:
        self.scale, self.out, self.extra, self.say = scale, out.resolve(), tuple(extra), say
        self.at_once = at_once or min(cores(), 4)
        self.threads = max(1, cores() // self.at_once)
        self.processes = Processes()
        self.failed: list[str] = []
        self.left: list[str] = []

    def prepare(self) -> None:
        """Write the record files, the known facts and what the page says about this machine."""
        write_data(self.out, self.scale)
        knowns = self.out / "knowns.json"
        if not knowns.is_file():
            run_python("-m", "claims.knowns", str(knowns), f"experiment={self.scale.experiment}", *self.extra)
        told = {"scale": self.scale.name, "extra": self.extra, "at_once": self.at_once}
        write_json(self.out / "claims.json", told | machine())

    def sweep(self, setting: Setting) -> list[Job]:
        """The jobs of a setting's sweep, or of the one whose choice it takes."""
        return tuning(self.scale, self._tuned(setting), self.out, self.extra)

    def _tuned(self, setting: Setting) -> Setting:
        return settings(self.scale)[setting.tuned_as] if setting.tuned_as else setting

    def choice(self, setting: Setting) -> Choice | None:
        """What the setting's sweep chose; None while it is not done."""
        return choose(self._tuned(setting), self.sweep(setting), self.out)

    def final(self, setting: Setting, seed: int) -> Job | None:
        """The setting's long run on a seed; None while its sweep has not chosen."""
        found, knowns = self.choice(setting), self.out / "knowns.json"
        if found is None:
            return None
        known = knowns.is_file() and knowns.stat().st_size > 10  # more than an empty list
        return final(self.scale, setting, found.point, self.out, seed, known, self.extra)

    def seeds(self, setting: Setting) -> range:
        """The seeds that a setting's long run is made on."""
        return range(self.scale.seeds if setting.headline else 1)

    def run(self, parts: Sequence[str]) -> list[str]:
        """The sweeps, then every setting on the first seed, then the other seeds; returns the jobs that failed."""
        chosen = list(chosen_settings(self.scale, parts))
        sweeps = list(dict.fromkeys(job for setting in chosen for job in self.sweep(setting)))
        pairs = [(setting, seed) for seed in range(self.scale.seeds) for setting in chosen]
        finals = {f"final/{s.name}/seed{seed}": (s, seed) for s, seed in pairs if seed in self.seeds(s)}
        self.left = [job.path for job in sweeps] + list(finals)
        self._all(sweeps)
        jobs = {path: self.final(*pair) for path, pair in finals.items()}
        for path in (path for path, job in jobs.items() if job is None):
            self.say(f"{path}: not run: its sweep has no point that ended well")
            self.left.remove(path)
        self._all(job for job in jobs.values() if job is not None)
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

    def _one(self, job: Job) -> None:
        if state(job, self.out) in ("new", "stopped"):
            self.say(f"{len(self.left)} runs left{estimate(self.left, self.out, self.at_once)}: {job.path}")
        ended = self.execute(job)
        if self.processes.stopped and ended == "failed":  # stopped with this process: it goes on another time
            return
        self.left.remove(job.path)
        if ended == "failed":
            self.failed.append(job.path)
            error = read_status(self.out / job.path).get("error") or "see terminal.txt there"
            self.say(f"{job.path}: failed: {error}")
        elif ended == "diverged":
            self.say(f"{job.path}: its numbers stopped being finite")

    def execute(self, job: Job) -> str:
        """Run one job where it is not done; returns its state then: done, diverged or failed."""
        folder, found = self.out / job.path, state(job, self.out)
        if found in ("done", "diverged"):
            return found
        if found == "new":
            shutil.rmtree(folder, ignore_errors=True)
        words = [*job.words, f"hydra.run.dir={folder}"] if found == "new" else [f"resume={folder}"]
        folder.mkdir(parents=True, exist_ok=True)
        self.processes.call("main.py", *words, terminal=folder / "terminal.txt", threads=self.threads)
        ended = state(job, self.out)
        if ended not in ("done", "diverged"):
            return "failed"
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return ended
