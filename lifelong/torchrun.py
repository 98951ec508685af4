"""What is known of `torchrun --nproc-per-node=G main.py ...` before torch loads: which process this is."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext

from config.check import ConfigError
from config.schema import Config

ONE_PROCESS = "is done by one process; leave out torchrun"


def torchrun_ranks() -> tuple[int, int]:
    """This process's number among those that torchrun started for one run, and how many these are; (0, 1) without."""
    started = "MASTER_ADDR" in os.environ
    return (int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))) if started else (0, 1)


def led() -> AbstractContextManager[None]:
    """Around a whole program: rank 0 runs it, the others serve it, and leave when it ends."""
    rank, every = torchrun_ranks()
    if every == 1:
        return nullcontext()
    if rank:
        from lifelong.follower import follow

        sys.exit(follow())
    from lifelong.ranks import leading

    return leading(range(1, every))


def check_ranks(cfg: Config) -> None:
    """Refuse, by a ConfigError that names the key, what several processes cannot do together."""
    if torchrun_ranks()[1] == 1:
        return
    for key in ("score", "tune", "undo", "inspect"):
        if value := getattr(cfg, key):
            raise ConfigError(f"{key}={'true' if value is True else value}: {ONE_PROCESS}")
    if cfg.model.device_map:
        raise ConfigError(
            f"model.device_map={cfg.model.device_map}: under torchrun every process has the whole model on a GPU of "
            "its own; leave out torchrun, or set it to null"
        )
    if cfg.model.frozen_cache_dir:
        raise ConfigError(
            f"model.frozen_cache_dir={cfg.model.frozen_cache_dir}: which process is first there would decide the "
            "rounding; leave out torchrun, or set it to null"
        )
    if cfg.model_device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"model_device={cfg.model_device}: under torchrun process N takes GPU N; use auto, cuda or cpu, and "
            "CUDA_VISIBLE_DEVICES to say which GPUs"
        )
