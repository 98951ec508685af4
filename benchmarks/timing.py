"""What the benchmarks share: the command line, ways raced in one process, peak memory, the table, the JSON line."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

# before torch starts its threads: threads that spin while they wait cost a shared machine several times the work
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pandas as pd
import torch
from torch.utils.benchmark.utils.timer import timer

from config.check import ConfigError, RunError
from data.base import DataError
from model import resolve_device

Result = TypeVar("Result")


class Found(NamedTuple):
    """What a benchmark found: a table, of which people see some columns; further figures; targets with their figure."""

    table: pd.DataFrame
    shown: Sequence[str]
    figures: Mapping[str, Any]
    targets: Mapping[str, dict[str, Any]]


Measure = Callable[[argparse.Namespace, torch.device], Found]


def command(
    name: str, text: str | None, measure: Measure, rounds: int = 1, **options: dict[str, Any]
) -> Callable[..., dict[str, Any]]:
    """A benchmark's main(argv): it measures, prints the table, the targets and one JSON line, which it returns.

    `options` are argparse's beside those that all benchmarks take. Quick runs have no targets.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=text)
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda:N (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as PyTorch chooses)")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds of every way (default {rounds})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, says nothing of speed")
    for option, told in options.items():
        parser.add_argument(f"--{option.replace('_', '-')}", **told)

    def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
        args = parser.parse_args(argv)
        try:
            found = measure(args, device := started(args))
        except (ConfigError, DataError, RunError) as error:
            sys.exit(f"error: {error}")
        print(found.table.reindex(columns=list(found.shown)).to_string(index=False, na_rep="", float_format=_digits))
        targets = {} if args.quick else found.targets
        for label, target in targets.items():
            print(f"{label}: {target['value']:.3g} (target: {bound(target)}; {'met' if target['met'] else 'missed'})")
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        line = {"benchmark": name, "quick": args.quick, "device": str(device), "device_name": gpu or platform.machine()}
        line |= {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        line |= {"torch": torch.__version__, "date": time.strftime("%Y-%m-%d %H:%M"), **found.figures}
        rows = [row.dropna().to_dict() for _, row in found.table.astype(object).iterrows()]
        line |= {"targets": targets, "table": rows}
        print(json.dumps(line, default=lambda value: value.item()))
        return line

    return main


def started(args: argparse.Namespace) -> torch.device:
    """Apply the common options. Raises ConfigError where they cannot be."""
    if args.rounds < 1 or (args.threads is not None and args.threads < 1):
        raise ConfigError("--rounds and --threads must be at least 1")
    torch.set_num_threads(args.threads or torch.get_num_threads())
    torch.manual_seed(0)
    return resolve_device("--device", args.device)


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def at_most(value: float, target: float) -> dict[str, Any]:
    """A target that a figure must not exceed."""
    return {"value": value, "at_most": target, "met": bool(value <= target)}


def at_least(value: float, target: float) -> dict[str, Any]:
    """A target that a figure must reach."""
    return {"value": value, "at_least": target, "met": bool(value >= target)}


def bound(target: Mapping[str, Any]) -> str:
    """A target as a person reads it."""
    return f"at most {target['at_most']:.3g}" if "at_most" in target else f"at least {target['at_least']:.3g}"


def race(
    ways: Mapping[str, Callable[[], Result]],
    rounds: int,
    device: torch.device,
    warm_up: int = 1,
    prepare: Callable[[str], Any] = lambda way: None,
    clock: Callable[[], float] = timer,
    cpu_clock: Callable[[], float] = time.process_time,
) -> tuple[pd.DataFrame, dict[str, Result]]:
    """Every way `rounds` times, interleaved, after `warm_up` rounds that are not counted.

    A row for each way: median, lowest and highest seconds, median processor seconds, the most memory in MiB that a
    round took beyond what was there. Then what each way gave last. `prepare` is told the way before every call,
    outside the time. PyTorch's `timer` waits for a GPU.
    """
    turns, given = [], {}
    for turn in range(-warm_up, rounds):
        for way in list(ways)[:: -1 if turn % 2 else 1]:
            prepare(way)
            memory = ExtraMemory(device)
            begun, begun_cpu = clock(), cpu_clock()
            given[way] = ways[way]()
            seconds, cpu_seconds = clock() - begun, cpu_clock() - begun_cpu
            turns.append((way, turn, seconds, cpu_seconds, memory.peak()))
    counted = pd.DataFrame(turns, columns=["way", "turn", "s", "cpu_s", "extra_mib"]).query("turn >= 0").groupby("way")
    figures = {"s": ("s", "median"), "lowest_s": ("s", "min"), "highest_s": ("s", "max"), "rounds": ("s", "size")}
    return counted.agg(**figures, cpu_s=("cpu_s", "median"), extra_mib=("extra_mib", "max")).loc[list(ways)], given


def flat(times: pd.DataFrame) -> dict[str, Any]:
    """What a race gave as one row: WAY_s, WAY_lowest_s ..."""
    return {f"{way}_{figure}": value for way, row in times.to_dict("index").items() for figure, value in row.items()}


class ExtraMemory:
    """Peak memory beyond what is held when this is made (`before`, MiB): resident, or allocated on a GPU."""

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self.gpu = device if device.type == "cuda" else None
        if self.gpu:
            torch.cuda.reset_peak_memory_stats(device)
        with suppress(OSError):  # not Linux, or not allowed: the process's earlier peak then counts too
            Path("/proc/self/clear_refs").write_text("5")
        self.before = torch.cuda.memory_allocated(device) / 2**20 if self.gpu else process_memory("self", "VmRSS")

    def peak(self) -> float:
        """MiB beyond `before`."""
        now = torch.cuda.max_memory_allocated(self.gpu) / 2**20 if self.gpu else process_memory("self", "VmHWM")
        return now - self.before


def process_memory(pid: int | str, name: str) -> float:
    """VmRSS or VmHWM of a process in MiB; this process's peak where the system does not say."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative Frobenius distance, computed in float64."""
    exact = exact.double()
    return ((found.double() - exact).norm() / exact.norm()).item()
