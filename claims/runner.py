"""Run a plan, some main.py at a time: what is done stays, what was stopped goes on, what fails is noted."""

from __future__ import annotations

import itertools
import platform
import re
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from files import write_json
from lifelong.process import Processes, cores, run_python
from lifelong.status import read_status
from report.load import load_run

from .inputs import write_data
from .plan import PLAN, Job, Scale, Setting, chosen_settings


class Choice(NamedTuple):
    """A sweep's outcome: the chosen point, each point's merit, and whether the best is its first or last point."""

    point: str
    scores: dict[str, float | None]
    edge: bool


def diverged(run_dir: Path) -> bool:
    """Whether a run ended with numbers that are not finite."""
    return str(read_status(run_dir).get("error")).startswith("NumericsError")


def state(job: Job, out: Path) -> str:
    """done, diverged (numbers that are not finite: a result too), stopped (can go on), or new."""
    status = read_status(out / job.path)
    overrides = [word for word in status.get("overrides", []) if not word.startswith("resume=")]
    if overrides != [word for word in job.words if not word.startswith("hydra.")]:  # which Hydra keeps to itself
        return "new"
    if status["state"] in ("done", "failed"):
        return "done" if status["state"] == "done" else "diverged" if diverged(out / job.path) else "new"
    return "stopped" if (out / job.path / ".hydra" / "overrides.yaml").is_file() else "new"


class Jobs:
    """Runs jobs in `out`; a line is said before each and where one fails."""

    def __init__(self, out: Path, at_once: int | None = None) -> None:
        self.out, self.at_once = out.resolve(), at_once or min(cores(), 4)
        self.processes, self.failed = Processes(max(1, cores() // self.at_once)), list[str]()

    def all(self, jobs: Iterable[Job]) -> None:
        """Run jobs, some at a time, in their order; when this process is stopped they may save their state first."""
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                tasks = [pool.submit(self.execute, job) for job in jobs]
                for task in tqdm(as_completed(tasks), "runs", len(tasks), disable=None):
                    task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.processes.stop()
                raise

    def execute(self, job: Job) -> str:
        """Run one job where it is not done; returns its state then: done, diverged or failed."""
        folder, found = self.out / job.path, state(job, self.out)
        words = [f"resume={folder}"]
        if found == "new":
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            words = [*job.words, f"hydra.run.dir={folder}"]
        if found in ("new", "stopped"):
            tqdm.write(job.path)
            self.processes.call("main.py", *words, terminal=folder / "terminal.txt")
            found = state(job, self.out)
        if found in ("done", "diverged"):
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            if found == "diverged":
                tqdm.write(f"{job.path}: its numbers stopped being finite")
            return found
        if not self.processes.stopped:  # else it was stopped with this process and goes on another time
            self.failed.append(job.path)
            tqdm.write(f"{job.path}: failed: {read_status(folder).get('error') or 'see terminal.txt there'}")
        return "failed"


class Runner(Jobs):
    """Runs the jobs of some parts."""

    def __init__(self, scale: Scale, out: Path, extra: Sequence[str] = (), at_once: int | None = None) -> None:
        super().__init__(out, at_once)
        self.scale, self.extra = scale, tuple(extra)

    def prepare(self) -> None:
        """Write the record files, the known facts and what the page says about this machine."""
        write_data(self.out, self.scale)
        knowns, info = self.out / "knowns.json", Path("/proc/cpuinfo")
        if not knowns.is_file():
            run_python("-m", "claims.inputs", str(knowns), f"experiment={self.scale.experiment}", *self.extra)
        named = re.search(r"model name\s*:\s*(.*)", info.read_text(encoding="utf-8")) if info.is_file() else None
        told = {"scale": self.scale.name, "extra": self.extra, "at_once": self.at_once, "cores": cores()}
        write_json(self.out / "claims.json", told | {"cpu": named[1] if named else platform.machine()})

    def sweep(self, setting: Setting) -> list[Job]:
        """The sweep of a setting, or of the one whose choice it takes: few steps on records that no other run reads."""
        tuned, scale = setting.tuned_as or setting, self.scale
        size = (f"num_seq={scale.tune_edits // scale.n_edits}", f"eval.edits={scale.tune_scored}")
        words = (*self._common(tuned, "tune"), *size, *PLAN["tune"].split())
        return [Job(f"tune/{tuned.name}/lr_{lr:g}", (*words, f"editor.lr={lr:g}", *self.extra)) for lr in tuned.lr]

    def choice(self, setting: Setting) -> Choice | None:
        """The best point of its sweep, the first of equals; None while a point is missing or if none ended well."""
        runs = [load_run(self.out / job.path) for job in self.sweep(setting)]
        scores = {run.name: run.merit("published") for run in runs}
        ended = [score for score in scores.values() if score is not None]
        if not ended or any(run.state in ("no record", "running", "interrupted") for run in runs):
            return None
        at = [*scores.values()].index(max(ended))
        return Choice(f"editor.lr={(setting.tuned_as or setting).lr[at]:g}", scores, at in (0, len(runs) - 1))

    def finals(self, setting: Setting) -> list[Job]:
        """The setting's long runs, one for each of its seeds; none while its sweep has not chosen."""
        found, knowns = self.choice(setting), self.out / "knowns.json"
        if found is None:
            return []
        known = knowns.is_file() and knowns.stat().st_size > 10  # more than an empty list
        seeds = range(self.scale.seeds if setting.headline else 1)
        return [self.final(setting, found.point, seed, knowns=known) for seed in seeds]

    def final(self, setting: Setting, point: str, seed: int, *, knowns: bool) -> Job:
        """A long run with the chosen point, on the seed's edits in the seed's order."""
        known = f"eval.knowns_path={self.out / 'knowns.json'}" if knowns else "eval.knowns=0"
        long = setting.long.split() if seed == 0 else ()
        words = (*self._common(setting, f"eval_{seed}"), known, *long, f"seed={seed}", point, *self.extra)
        return Job(f"final/{setting.name}/seed{seed}", words)

    def _common(self, setting: Setting, records: str) -> tuple[str, ...]:
        train, valid = (f"{self.out}/data/{name}.jsonl" for name in ("train", records))
        words = (f"experiment={self.scale.experiment}", *setting.words.split())
        words += (f"dataset.train_path={train}", f"model.frozen_cache_dir={self.out}/frozen")
        return (*words, f"dataset.valid_path={valid}")

    def run(self, parts: Sequence[str]) -> list[str]:
        """The sweeps, then every setting on the first seed, then the other seeds; returns the jobs that failed."""
        chosen = chosen_settings(self.scale, parts)
        self.all(dict.fromkeys(job for setting in chosen for job in self.sweep(setting)))
        finals = {setting.name: self.finals(setting) for setting in chosen}
        for name in [name for name, jobs in finals.items() if not jobs]:
            tqdm.write(f"final/{name}: not run: its sweep has no point that ended well")
        self.all(sorted(itertools.chain(*finals.values()), key=lambda job: Path(job.path).name))
        return self.failed
