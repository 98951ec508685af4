"""How long runs took and may still take, and on what machine."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from lifelong.shares import cores
from lifelong.status import read_status


def seconds(folder: Path) -> float | None:
    """How long a finished run took, from its status; None where it did not finish."""
    status = read_status(folder)
    if status.get("state") != "done" or not status.get("ended"):
        return None
    return (datetime.fromisoformat(status["ended"]) - datetime.fromisoformat(status["started"])).total_seconds()


def taken(out: Path) -> pd.DataFrame:
    """Every finished run below `out`: stage, setting, name and the seconds that it took."""
    folders = [path.parent for path in out.glob("*/*/*/status.json")]
    rows = [(*folder.relative_to(out).parts, seconds(folder)) for folder in folders]
    return pd.DataFrame(rows, columns=["stage", "setting", "name", "seconds"]).dropna()


def estimate(left: Sequence[str], out: Path, at_once: int = 1) -> str:
    """How long the runs that are left may take, by those of their setting, else of their stage; empty before any."""
    done = taken(out)
    if done.empty:
        return ""
    typical = done.groupby(["stage", "setting"])["seconds"].median().to_dict()
    stages = done.groupby("stage")["seconds"].median().to_dict()
    total = 0.0
    for stage, setting, _ in (path.split("/") for path in left):
        total += typical.get((stage, setting), stages.get(stage, done["seconds"].mean()))
    minutes = total / 60 / at_once
    return f", about {minutes:.0f} min" if minutes >= 1 else ", less than a minute"


def machine() -> dict[str, str | int]:
    """The processor's name, and the cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return {"cpu": names[0] if names else platform.processor() or platform.machine(), "cores": cores()}
