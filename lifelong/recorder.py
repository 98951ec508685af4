"""What a run leaves: results.json, metrics.jsonl, and the same numbers in Weights & Biases."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from config.schema import WandbConfig, WandbMode
from files import finite, flatten, write_json

PACKAGES = ("torch", "transformers", "hydra-core", "omegaconf", "numpy", "safetensors")


def versions() -> dict[str, str]:
    """Python, platform and the packages whose versions can move a number."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def peak_memory() -> dict[str, int]:
    """Peak resident memory of this process and, where there is a GPU, its peak allocation, in MiB."""
    peaks = {"resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    if torch.cuda.is_available():
        peaks["device_mib"] = torch.cuda.max_memory_allocated() // 2**20
    return peaks


class Recorder:
    """Appends to metrics.jsonl, writes results.json, mirrors both to wandb. Use as a context manager."""

    def __init__(self, run_dir: Path, wandb_cfg: WandbConfig, name: str, config: dict[str, Any]) -> None:
        self.run_dir = run_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics = open(run_dir / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115  closed in __exit__
        self._wandb = None
        if wandb_cfg.mode is not WandbMode.disabled:
            if wandb_cfg.mode is not WandbMode.online:
                os.environ["WANDB_ERROR_REPORTING"] = "false"  # its crash reports ask DNS even where it is offline
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
        self._metrics.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=1 if kind else 0)

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self._metrics.write(json.dumps(finite(record), allow_nan=False) + "\n")
        self._metrics.flush()
        if self._wandb is not None:
            self._wandb.log(flatten(record, "/"))

    def state_dict(self) -> dict[str, int]:
        """How long metrics.jsonl is."""
        return {"bytes": self._metrics.tell()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Cut metrics.jsonl back to an earlier length: what came after is written again."""
        self._metrics.truncate(state["bytes"])
        self._metrics.seek(state["bytes"])

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl of one kind of event, those from before a resume included."""
        with open(self.run_dir / "metrics.jsonl", encoding="utf-8") as file:
            return [line for line in map(json.loads, file) if line["event"] == name]

    def finish(self, results: dict[str, Any]) -> None:
        """Write results.json and wandb's summary."""
        write_json(self.run_dir / "results.json", results)
        if self._wandb is not None:
            self._wandb.summary.update(flatten({k: v for k, v in results.items() if k != "config"}, "/"))
