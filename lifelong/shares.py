"""How the jobs of a sweep share one machine: threads, places and GPUs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

USER_DEVICES = "SWEEP_CUDA_VISIBLE_DEVICES"  # what CUDA_VISIBLE_DEVICES was before a launcher changed it


def device_of_job(job: int, devices: int) -> str:
    """The model_device of a sweep's job where it is auto: the GPUs in turn; auto where there is none."""
    return f"cuda:{job % devices}" if devices else "auto"


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
    devices = env.pop(USER_DEVICES, None)
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
