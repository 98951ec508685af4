"""What a run leaves: results.json, metrics.jsonl, and the same numbers in Weights & Biases."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import resource
import shutil
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from config.schema import WandbConfig, WandbMode
from files import finite, flatten, regular, write_json

log = logging.getLogger(__name__)
PACKAGES = ("torch", "transformers", "hydra-core", "omegaconf", "numpy", "safetensors")


def versions() -> dict[str, str]:
    """Python, platform and the packages whose versions can move a number."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def peak_memory() -> dict[str, int]:
    """Peak resident memory of this process and, by GPU that it used, its peak allocation there, in MiB."""
    peaks = {"resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if used := torch.cuda.max_memory_allocated(number):
            peaks[f"cuda:{number}_mib"] = used // 2**20
    return peaks


def cpu_seconds() -> float:
    """Processor time of this process: what a run costs, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round(used.ru_utime + used.ru_stime, 1)


class Recorder:
    """Appends to metrics.jsonl, writes results.json, mirrors both to wandb. Use as a context manager."""

    def __init__(
        self, run_dir: Path, wandb_cfg: WandbConfig, name: str, config: dict[str, Any], *, resumes: bool = False
    ) -> None:
        self.run_dir = run_dir
        self.edits_before, self.steps_before = 0, 0  # of the run that this one continues from
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path, self._digest = run_dir / "metrics.jsonl", sha256()
        self._metrics = open(regular(self.path), "a" if resumes else "w", encoding="utf-8")  # noqa: SIM115  closed in __exit__
        self._wandb = None
        if wandb_cfg.mode is not WandbMode.disabled:
            if wandb_cfg.mode is not WandbMode.online:
                os.environ["WANDB_ERROR_REPORTING"] = "false"  # its crash reports ask DNS even where it is offline
                os.environ["WANDB_CACHE_DIR"] = str(run_dir / "wandb" / "cache")  # its own logs, else below HOME
            import wandb  # slow to import, and not every run wants it

            mode: Any = wandb_cfg.mode.value
            self._wandb = wandb.init(
                mode=mode,
                project=wandb_cfg.project,
                name=wandb_cfg.name or name,
                dir=run_dir,
                config=config,
                settings=wandb.Settings(silent=True, console="off"),
            )

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError):  # of a full disk log has told
            self._metrics.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=1 if kind else 0)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl; `edits` of this run are numbered on from those before it."""
        record = record | {"edits": record["edits"] + self.edits_before} if "edits" in record else record
        line = json.dumps(finite(record), allow_nan=False) + "\n"
        self._metrics.write(line)
        self._metrics.flush()
        self._digest.update(line.encode())
        if self._wandb is not None:
            self._wandb.log(flatten(record, "/"))

    def state_dict(self) -> dict[str, Any]:
        """How long metrics.jsonl is and its sha256, all of it on the disk: a checkpoint's lines outlive a power cut."""
        os.fsync(self._metrics.fileno())
        return {"bytes": self._metrics.tell(), "sha256": self._digest.hexdigest()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut metrics.jsonl back to an earlier state: what came after is written again. A damaged one is set aside."""
        with open(self.path, "rb") as file:
            self._digest = sha256(file.read(state["bytes"]))
        length = state["bytes"]
        if self._digest.hexdigest() != state["sha256"]:
            log.warning(
                "resume: %s was lost, cut or changed: what is left of it is kept as %s.damaged, and it begins anew; "
                "weights and scores do not depend on it", self.path, self.path.name,
            )  # fmt: skip
            shutil.copyfile(self.path, f"{self.path}.damaged")
            self._digest, length = sha256(), 0
        self._metrics.truncate(length)
        self._metrics.seek(length)

    def finish(self, results: dict[str, Any]) -> None:
        """Write results.json and wandb's summary."""
        write_json(self.run_dir / "results.json", results)
        if self._wandb is not None:
            self._wandb.summary.update(flatten({k: v for k, v in results.items() if k != "config"}, "/"))
