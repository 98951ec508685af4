"""One run from its configuration: as main.py's only run, or as a job of a sweep with its share of the machine.

A sweep's job is a process of its own below the one that Hydra's launcher calls, so that its death is only its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from config.check import ConfigError, RunError, check_values
from config.compose import typed_config
from config.schema import Config
from config.scoring import scoring_config
from data.base import DataError
from lifelong import sweep
from lifelong.process import cores, start_python
from lifelong.status import SIGNALS, Interrupted, end_status, held, new_status, read_status, tracked
from lifelong.torchrun import check_ranks

Place = AbstractContextManager[None]
EXPECTED = (ConfigError, DataError, RunError)  # errors that one line explains
OUTPUT = "output.log"  # stdout and stderr of a job that runs beside others
TAIL_LINES = 20


def execute(
    cfg: Config, run_dir: Path, overrides: Sequence[str], job: int | None = None, place: Place | None = None
) -> dict[str, Any]:
    """What main.py is for: show the config, list the model's modules ({}), or tune or run, within `place`, which may
    have it wait; the results.

    Raises:
        ConfigError, DataError, RunError, Interrupted: as lifelong.run.run.
    """
    cfg = scoring_config(cfg)
    check_ranks(cfg)
    if cfg.verbose:
        print(OmegaConf.to_yaml(OmegaConf.structured(cfg)), end="", flush=True)
    if cfg.inspect:
        from lifelong.inspect import inspect_model

        print(inspect_model(cfg))
        return {}
    if cfg.undo:
        from lifelong.undo import undo_run

        print(undo_run(cfg))
        return {}
    with ExitStack() as stack:
        stack.enter_context(held(run_dir, resumes=cfg.resume is not None))
        if read_status(run_dir).get("state") == "done" and not cfg.tune:
            from lifelong.run import done_before

            if results := done_before(cfg, run_dir):
                return results
        stack.enter_context(tracked(run_dir, overrides, job))
        stack.enter_context(place or nullcontext())
        return _work(cfg, run_dir, overrides)


def _work(cfg: Config, run_dir: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Score, tune or run; torch and transformers load only when it starts."""
    if cfg.score is not None:
        from lifelong.score import score

        return score(cfg, run_dir, overrides)
    if cfg.tune:
        from lifelong.tune import tune

        return tune(cfg, run_dir, overrides)
    check_values(cfg)  # a wrong word is answered before the libraries load
    from lifelong.run import run

    return run(cfg, run_dir)


def sweep_job(cfg: DictConfig) -> None:
    """Run one job of a sweep: from its start, from where it was stopped, or not at all where it is done."""
    hydra = HydraConfig.get()
    run_dir, folder = Path(hydra.runtime.output_dir), Path(hydra.runtime.cwd, hydra.sweep.dir)
    told, status = describe(cfg, hydra), read_status(run_dir)
    if status:
        told["config"]["resume"] = str(run_dir)
        if [word for word in status["overrides"] if not word.startswith("resume=")] != told["overrides"]:
            print(f"error: hydra.sweep.subdir: {run_dir} holds another job; one folder each", file=sys.stderr)
            sys.exit(1)
    if status.get("state") != "done":
        if sweep.is_over(folder, hydra.launcher):
            end_status(run_dir, new_status(told["overrides"], told["job"]), "interrupted", sweep.NOT_STARTED)
            return
        code = run_child(told, run_dir, folder, hydra.launcher)
        status = settle(told, run_dir, code, stopped=sweep.is_over(folder, hydra.launcher))
    if sweep.is_gone(folder, hydra.launcher):
        os._exit(1)  # nobody is left whom a worker of joblib could hand its result
    if sweep.current is None and status:
        print(f"job {told['job']}: {status['state']}" + (f": {status['error']}" if status["error"] else ""), flush=True)


def describe(cfg: DictConfig, hydra: Any) -> dict[str, Any]:
    """All that the child needs, as JSON: resolved here, where ${hydra:job.num} and ${now:} mean something."""
    return {
        "config": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "logging": OmegaConf.to_container(hydra.job_logging, resolve=True),
        "verbose": hydra.verbose if isinstance(hydra.verbose, bool | str) else list(hydra.verbose),
        "overrides": list(hydra.overrides.task),
        "job": hydra.job.num,
        "jobs_at_once": jobs_at_once(hydra.launcher, cores()),
        "lease_gpu": cfg.model_device == "auto" and "Slurm" not in hydra.launcher["_target_"],
    }


def run_child(told: dict[str, Any], run_dir: Path, folder: Path, launcher: Mapping[str, Any]) -> int:
    """Run the job until it ends or the sweep does; its exit status (negative: the signal that killed it).

    Where other jobs run beside it, what it prints goes to output.log in its folder.
    """
    words = ("-P", "-m", "lifelong.job", str(run_dir), str(folder))
    with open(run_dir / OUTPUT, "ab") if sweep.current is None else nullcontext() as output:
        options: dict[str, Any] = {"cwd": None, "env": child_env(launcher, os.environ), "process_group": 0}
        child = start_python(*words, stdin=subprocess.PIPE, stdout=output, stderr=output, **options)
    asked: list[int] = []
    if sweep.current is None:  # in a launcher's worker for good: a terminal's Ctrl-C is not for it between jobs too
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        before = signal.signal(signal.SIGTERM, lambda signum, _: asked.append(signum))
    try:
        # the child saves and ends when this end of its stdin is closed, by us or by our death
        with suppress(BrokenPipeError), child.stdin as stdin:  # type: ignore[union-attr]
            print(json.dumps(told), file=stdin, flush=True)
            while child.poll() is None and not asked and not sweep.is_over(folder, launcher):
                time.sleep(0.1)
        return child.wait()
    finally:
        child.kill()  # a second signal came while it saved
        if sweep.current is None:
            signal.signal(signal.SIGTERM, before)


def settle(told: dict[str, Any], run_dir: Path, code: int, *, stopped: bool) -> dict[str, Any]:
    """The job's final status: its own word, or ours where it could not write one any more."""
    status = read_status(run_dir)
    if status.get("state", "running") != "running" or (not status and code == 0):  # inspect=true has no status
        return status
    ended = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exited with status {code}"
    state = "interrupted" if stopped and -code in SIGNALS else "failed"
    status = status or new_status(told["overrides"], told["job"])
    output = run_dir / OUTPUT
    said = output.read_text(encoding="utf-8", errors="replace").splitlines() if output.is_file() else []
    end_status(run_dir, status, state, ended, "\n".join(said[-TAIL_LINES:]))
    return read_status(run_dir)


def child(run_dir: Path, sweep_dir: Path) -> int:
    """A sweep's job in a process of its own, described by JSON on stdin (describe); its exit status."""
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    from editor.registry import editor_class

    configure_log(OmegaConf.create(told["logging"]), told["verbose"])
    try:
        cfg = typed_config(told["config"], editor_class(told["config"]["editor"]["name"]).config_class)
        place = place_beside_others(sweep_dir, told["jobs_at_once"], gpu=told["lease_gpu"])
        execute(cfg, run_dir, told["overrides"], told["job"], place)
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.code
    return 0


def end_with_parent() -> None:
    """Have this process save and leave as soon as the other end of stdin is closed: by a stop, or by a death."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def threads_per_job(launcher: Mapping[str, Any], available: int) -> int | None:
    """Each job's share of the cores; None where one job has the machine to itself."""
    if "Joblib" in launcher["_target_"]:
        n_jobs = launcher.get("n_jobs") or 1
        return max(1, available // (n_jobs if n_jobs > 0 else max(1, available + 1 + n_jobs)))
    return launcher.get("cpus_per_task")


def jobs_at_once(launcher: Mapping[str, Any], available: int) -> int | None:
    """How many jobs may run where the launcher itself starts all of them (submitit_local); None elsewhere."""
    return max(1, available // (launcher["cpus_per_task"] or 1)) if "Local" in launcher["_target_"] else None


def child_env(launcher: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The job's environment: its threads unless the user set them, the user's GPUs where submitit hid them."""
    env = dict(environ)
    threads = threads_per_job(launcher, cores())
    if threads:
        env.setdefault("OMP_NUM_THREADS", str(threads))
    devices = env.pop(sweep.USER_DEVICES, None)
    if "Local" in launcher["_target_"] and not launcher["gpus_per_node"] and devices is not None:
        env.pop("CUDA_VISIBLE_DEVICES", None)
        env |= {} if devices == "all" else {"CUDA_VISIBLE_DEVICES": devices}
    return env


@contextmanager
def lease(folder: Path, count: int) -> Iterator[int]:
    """Wait for one of `count` places and hold it: its number. A process that dies gives its place back."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in cycle(range(count)):
        with suppress(Timeout):
            place = FileLock(folder / f"{number}.lock").acquire(timeout=0.1)
            break
    with place:
        yield number


@contextmanager
def place_beside_others(folder: Path, jobs: int | None, *, gpu: bool) -> Iterator[None]:
    """One of `jobs` places in a sweep (None: the launcher counts), and one of the GPUs where `gpu` wants any."""
    with ExitStack() as stack:
        if jobs:
            stack.enter_context(lease(folder / ".places", jobs))
        if gpu:
            import torch

            if torch.cuda.device_count():
                torch.cuda.set_device(stack.enter_context(lease(folder / ".gpus", torch.cuda.device_count())))
        yield


if __name__ == "__main__":
    sys.exit(child(Path(sys.argv[1]), Path(sys.argv[2])))
