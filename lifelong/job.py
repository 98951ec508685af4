"""One run from its configuration: as main.py's only run, or as a process of its own in a sweep."""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.utils import configure_log
from omegaconf import OmegaConf

from config.check import ConfigError, RunError
from config.compose import typed_config
from config.schema import Config
from config.show import show_config
from data.base import DataError
from lifelong.status import Interrupted, held, read_status, tracked

EXPECTED = (ConfigError, DataError, RunError)  # errors that one line explains
PR_SET_PDEATHSIG = 1


def execute(
    cfg: Config, run_dir: Path, overrides: Sequence[str], job: int | None = None, *, spread: bool = False
) -> dict[str, Any]:
    """What main.py is for: show the config, list the model's modules, or run; returns the results ({} if none).

    With `spread`, jobs of a sweep take the GPUs in turn where model_device is auto.

    Raises:
        ConfigError, DataError, RunError, Interrupted: as lifelong.run.run.
    """
    if cfg.verbose:
        show_config(cfg)
    if cfg.inspect:
        from lifelong.inspect import inspect_model

        print(inspect_model(cfg))
        return {}
    with ExitStack() as stack:
        stack.enter_context(held(run_dir, resumes=cfg.resume is not None))
        if read_status(run_dir).get("state") == "done":
            from lifelong.run import done_before

            if results := done_before(cfg, run_dir):
                return results
        stack.enter_context(tracked(run_dir, overrides, job))
        from lifelong.run import run  # torch and transformers load only when a run starts

        if spread and cfg.model_device == "auto":
            import torch

            cfg.model_device = device_of_job(job or 0, torch.cuda.device_count())
        return run(cfg, run_dir)


def device_of_job(job: int, devices: int) -> str:
    """The model_device of a sweep's job where it is auto: the GPUs in turn; auto where there is none."""
    return f"cuda:{job % devices}" if devices else "auto"


def child(run_dir: Path) -> int:
    """A sweep's job in a process of its own, described by JSON on stdin (sweep_job.describe); its exit status."""
    if sys.platform == "linux":  # a job must not outlive its sweep: SIGTERM lets it save and leave
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    from editor.registry import editor_class

    told = json.load(sys.stdin)
    configure_log(OmegaConf.create(told["logging"]), told["verbose"])
    try:
        cfg = typed_config(told["config"], editor_class(told["config"]["editor"]["name"]).config_class)
        execute(cfg, run_dir, told["overrides"], told["job"], spread=told["spread"])
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.code
    return 0


if __name__ == "__main__":
    sys.exit(child(Path(sys.argv[1])))
