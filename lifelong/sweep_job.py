"""A sweep's job as Hydra's launcher calls it, and how jobs share one machine: threads, places and GPUs.

The run is a process of its own, so that its death is only its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from files import read_json
from lifelong import sweep
from lifelong.process import start_python
from lifelong.status import SIGNALS, STATUS, end_status, new_status, read_status, write_status
from report.metrics import merit

OUTPUT = "output.log"  # stdout and stderr of a job that runs beside others
TAIL_LINES = 20


def sweep_job(cfg: DictConfig) -> float | None:
    """Run one job of a sweep; its objective, or None if it did not finish."""
    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    folder = Path(hydra.runtime.cwd, hydra.sweep.dir)
    told = describe(cfg, hydra)
    (run_dir / STATUS).unlink(missing_ok=True)  # of an earlier sweep in the same folder
    count = jobs_at_once(hydra.launcher, cores())
    waiting = new_status(told["overrides"], told["job"])
    if count:  # should this process die while it waits, there is a status that says so
        write_status(run_dir, waiting)
    with slot(folder / ".slots", count) if count else nullcontext():
        if stop_signal(folder):
            end_status(run_dir, waiting, "interrupted", sweep.NOT_STARTED)
            return None
        code = run_child(told, run_dir, folder, child_env(hydra.launcher, os.environ))
    status = settle(told, run_dir, code, stopped=stop_signal(folder) is not None)
    if kind(hydra.launcher) != "BasicLauncher" and status:
        print(f"job {told['job']}: {status['state']}" + (f": {status['error']}" if status["error"] else ""), flush=True)
    if status.get("state") != "done":
        return None
    return objective(read_json(run_dir / "results.json"))


def describe(cfg: DictConfig, hydra: Any) -> dict[str, Any]:
    """All that the child needs, as JSON: resolved here, where ${hydra:job.num} and ${now:} mean something."""
    return {
        "config": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "logging": OmegaConf.to_container(hydra.job_logging, resolve=True),
        "verbose": hydra.verbose if isinstance(hydra.verbose, bool | str) else list(hydra.verbose),
        "overrides": list(hydra.overrides.task),
        "job": hydra.job.num,
        "spread": kind(hydra.launcher) in ("JoblibLauncher", "LocalLauncher"),
    }


def objective(results: Mapping[str, Any]) -> float | None:
    """What a sweep maximizes: the merit of report.metrics, by which its table names the best too."""
    return merit(results, results.get("pre"))


def stop_signal(folder: Path) -> int | None:
    """The signal that the whole sweep was stopped by, if it was."""
    try:
        return int((folder / sweep.STOP).read_text())
    except (FileNotFoundError, ValueError):
        return None


def run_child(told: dict[str, Any], run_dir: Path, folder: Path, env: dict[str, str]) -> int:
    """Run the job, passing on what stops the sweep; its exit status (negative: the signal that killed it).

    Where other jobs run beside it, what it prints goes to output.log in its folder.
    """
    words = ("-P", "-m", "lifelong.job", str(run_dir))
    with open(run_dir / OUTPUT, "ab") if sweep.current is None else nullcontext() as output:
        child = start_python(
            *words, cwd=None, stdin=subprocess.PIPE, stdout=output, stderr=output, env=env, process_group=0
        )
    try:
        with _passing_on(child), suppress(BrokenPipeError):
            assert child.stdin is not None
            with child.stdin:
                json.dump(told, child.stdin)
            sent = None
            while child.poll() is None:
                asked = stop_signal(folder)
                if asked is not None and asked != sent:
                    child.send_signal(asked)
                    sent = asked
                time.sleep(0.1)
        return child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise


@contextmanager
def _passing_on(child: subprocess.Popen[str]) -> Iterator[None]:
    """In a launcher's worker: SIGTERM is for the child; SIGINT reaches it through the sweep's own process."""
    if sweep.current is not None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for good: between two jobs too, a terminal's Ctrl-C is not for us
    before = signal.signal(signal.SIGTERM, lambda signum, _: child.send_signal(signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def settle(told: dict[str, Any], run_dir: Path, code: int, *, stopped: bool) -> dict[str, Any]:
    """The job's final status: its own word, or ours where it could not write one any more."""
    status = read_status(run_dir)
    if status.get("state", "running") != "running" or (not status and code == 0):  # inspect=true has no status
        return status
    ended = f"exited with status {code}"
    if code < 0:
        ended = f"killed by signal {-code} ({signal.Signals(-code).name})"
    state = "interrupted" if stopped and -code in SIGNALS else "failed"
    status = status or new_status(told["overrides"], told["job"])
    end_status(run_dir, status, state, ended, tail(run_dir / OUTPUT))
    return read_status(run_dir)


def tail(path: Path) -> str:
    """The last lines of a job's output; empty where it went to the terminal."""
    if not path.is_file():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])


def kind(launcher: Mapping[str, Any]) -> str:
    """The class name of a launcher."""
    return str(launcher.get("_target_")).rpartition(".")[2]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_job(launcher: Mapping[str, Any], available: int) -> int | None:
    """Each job's share of the cores; None where one job has the machine to itself."""
    if kind(launcher) == "JoblibLauncher":
        n_jobs = launcher.get("n_jobs") or 1
        return max(1, available // (n_jobs if n_jobs > 0 else max(1, available + 1 + n_jobs)))
    return launcher.get("cpus_per_task")


def jobs_at_once(launcher: Mapping[str, Any], available: int) -> int | None:
    """How many jobs may run where the launcher itself starts all of them (submitit_local); None elsewhere."""
    if kind(launcher) != "LocalLauncher":
        return None
    return max(1, available // (launcher.get("cpus_per_task") or 1))


def child_env(launcher: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The job's environment: its threads unless the user set them, the user's GPUs where submitit hid them."""
    env = dict(environ)
    threads = threads_per_job(launcher, cores())
    if threads:
        env.setdefault("OMP_NUM_THREADS", str(threads))
    devices = env.pop(sweep.USER_DEVICES, None)
    if kind(launcher) == "LocalLauncher" and not launcher.get("gpus_per_node") and devices is not None:
        env.pop("CUDA_VISIBLE_DEVICES", None)
        env |= {} if devices == "all" else {"CUDA_VISIBLE_DEVICES": devices}
    return env


@contextmanager
def slot(folder: Path, count: int) -> Iterator[None]:
    """Wait for one of `count` places; a process that dies gives its place back."""
    folder.mkdir(parents=True, exist_ok=True)
    while (lock := _free_lock(folder, count)) is None:
        time.sleep(0.2)
    try:
        yield
    finally:
        lock.release()


def _free_lock(folder: Path, count: int) -> FileLock | None:
    for index in range(count):
        lock = FileLock(folder / f"{index}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return lock
    return None
