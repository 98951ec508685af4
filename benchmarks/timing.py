"""What the benchmarks share: variants raced in one process, medians, peak memory, the table and the JSON line.

Variants take turns round by round, the first of one round being the last of the next: whatever else the machine
does falls on all of them alike. Times are wall-clock medians; processor time, which other programs disturb less
but in which waiting costs nothing, stands beside them.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# before torch starts its threads: threads that spin while they wait cost a shared machine several times the work
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from config.check import ConfigError
from model import resolve_device
from report.terminal import aligned

Clock = Callable[[], float]


@dataclass(slots=True)
class Timed:
    """One variant's rounds, in seconds, and the most memory a round took beyond what was there, in MiB."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    extra_mib: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)

    def summary(self) -> dict[str, float]:
        """What goes into the JSON line."""
        found = {"s": self.median, "lowest_s": min(self.seconds), "highest_s": max(self.seconds)}
        found |= {"cpu_s": statistics.median(self.cpu_seconds), "rounds": len(self.seconds)}
        return found | {"extra_mib": max(self.extra_mib)}


def ratio(slow: Timed, fast: Timed) -> float:
    """How many times faster `fast` is: the ratio of the medians."""
    return slow.median / fast.median


def synchronize(device: torch.device) -> None:
    """Wait until a CUDA device has done what it was asked; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def race(
    variants: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    device: torch.device,
    warm_up: int = 1,
    prepare: Callable[[], Any] | None = None,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> dict[str, Timed]:
    """Run every variant `rounds` times, interleaved, after `warm_up` rounds that are not counted.

    `prepare` runs before every call, outside the time.
    """
    found = {name: Timed() for name in variants}
    for number in range(-warm_up, rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            if prepare is not None:
                prepare()
            memory = ExtraMemory(device)
            synchronize(device)
            start, start_cpu = clock(), cpu_clock()
            variants[name]()
            synchronize(device)
            seconds, cpu_seconds = clock() - start, cpu_clock() - start_cpu
            if number >= 0:
                found[name].seconds.append(seconds)
                found[name].cpu_seconds.append(cpu_seconds)
                found[name].extra_mib.append(memory.peak())
    return found


class ExtraMemory:
    """Peak memory beyond what is held when this is made (`before`, MiB): resident, or allocated on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device) / 2**20
            return
        with suppress(OSError):  # not Linux, or not allowed: the process's earlier peak then counts too
            Path("/proc/self/clear_refs").write_text("5")
        self.before = _status("VmRSS")

    def peak(self) -> float:
        """MiB beyond `before`."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20 - self.before
        return _status("VmHWM") - self.before


def _status(name: str) -> float:
    """A line of /proc/self/status in MiB; the process's peak where there is no such file."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative Frobenius distance, computed in float64."""
    exact = exact.double()
    return ((found.double() - exact).norm() / exact.norm()).item()


def parser(name: str, text: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A benchmark's command line with what all of them take."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(text or "").splitlines()[0])
    made.add_argument("--device", default="auto", help="auto | cpu | cuda:N (default auto)")
    made.add_argument("--threads", type=int, help="CPU threads (default: as PyTorch chooses)")
    made.add_argument("--rounds", type=int, default=rounds, help=f"rounds of every variant (default {rounds})")
    made.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, says nothing of speed")
    return made


def start(args: argparse.Namespace) -> torch.device:
    """Apply the common options; leaves with one line where they cannot be."""
    if args.rounds < 1 or (args.threads is not None and args.threads < 1):
        sys.exit("error: --rounds and --threads must be at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    try:
        return resolve_device("--device", args.device)
    except ConfigError as error:
        sys.exit(f"error: {error}")


def machine(device: torch.device) -> dict[str, Any]:
    """Where figures were taken; load is the run queue's mean length over the last minute."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def show(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table for people; numbers to three digits."""
    print(aligned(header, [[_cell(value) for value in row] for row in rows], left=(0,)))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return "" if value is None else str(value)


def at_most(value: float, target: float) -> dict[str, Any]:
    """A target that a figure must not exceed."""
    return {"value": value, "at_most": target, "met": value <= target}


def at_least(value: float, target: float) -> dict[str, Any]:
    """A target that a figure must reach."""
    return {"value": value, "at_least": target, "met": value >= target}


def finish(name: str, args: argparse.Namespace, device: torch.device, figures: dict, targets: dict) -> dict[str, Any]:
    """Print each target with its figure, then everything as one JSON line; returns that line's content."""
    for label, target in targets.items():
        bound = f"at most {target['at_most']:g}" if "at_most" in target else f"at least {target['at_least']:g}"
        print(f"{label}: {target['value']:.3g} (target: {bound}; {'met' if target['met'] else 'missed'})")
    line = {"benchmark": name, "quick": args.quick, **machine(device), **figures, "targets": targets}
    print(json.dumps(line))
    return line
