"""How long runs took and may still take, and on what machine."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lifelong.status import read_status

from .plan import LEARNED


def kind(path: str) -> tuple[str, bool]:
    """What a run's time depends on most: its stage, and whether networks are trained."""
    stage, setting, _ = path.split("/")
    return stage, setting in LEARNED


def seconds(folder: Path) -> float | None:
    """How long a finished run took, from its status; None where it did not finish."""
    status = read_status(folder)
    if status.get("state") != "done" or not status.get("ended"):
        return None
    return (datetime.fromisoformat(status["ended"]) - datetime.fromisoformat(status["started"])).total_seconds()


def estimate(left: Sequence[str], out: Path, at_once: int = 1) -> str:
    """How long the runs that are left may take, going by those that are done; empty before the first."""
    times: dict[tuple[str, bool], list[float]] = {}
    for path in out.glob("*/*/*/status.json"):
        taken = seconds(path.parent)
        if taken is not None:
            times.setdefault(kind(str(path.parent.relative_to(out))), []).append(taken)
    if not times:
        return ""
    typical = {key: statistics.median(values) for key, values in times.items()}
    anything = statistics.mean(typical.values())
    minutes = sum(typical.get(kind(path), anything) for path in left) / 60 / at_once
    return f", about {minutes:.0f} min" if minutes >= 1 else ", less than a minute"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, str | int]:
    """The processor's name, and the cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return {"cpu": names[0] if names else platform.processor() or platform.machine(), "cores": cores()}
