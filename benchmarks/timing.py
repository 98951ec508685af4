"""What the benchmarks share: the command line, ways raced in one process, targets, the table, the JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

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
Found = tuple[pd.DataFrame, dict[str, Any]]
"""What a benchmark measured: a table, and figures beside it."""


def command(
    measure: Callable[[argparse.Namespace, torch.device], Found],
    rounds: int = 1,
    options: Mapping[str, dict[str, Any]] = {},
    **targets: tuple[str, float],
) -> Callable[..., dict[str, Any]]:
    """The main(argv) of the benchmark whose module `measure` stands in.

    It measures, prints the table, the targets and one JSON line, which it returns. `options` are argparse's beside
    those that all benchmarks take; `targets` are for figures by name, as ("at least", 40); quick runs have none.
    """
    module = sys.modules[measure.__module__]
    name = Path(str(module.__file__)).stem
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=module.__doc__)
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda:N (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as PyTorch chooses)")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds of every way (default {rounds})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, says nothing of speed")
    for option, told in options.items():
        parser.add_argument(option, **told)

    def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
        args = parser.parse_args(argv)
        try:
            if args.rounds < 1 or (args.threads is not None and args.threads < 1):
                raise ConfigError("--rounds and --threads must be at least 1")
            torch.set_num_threads(args.threads or torch.get_num_threads())
            torch.manual_seed(0)
            table, figures = measure(args, device := resolve_device("--device", args.device))
        except (ConfigError, DataError, RunError, OSError) as error:
            sys.exit(f"error: {error}")
        table = table.reset_index()
        judged = [judge(what, figures[what], *bound) for what, bound in targets.items() if not args.quick]
        print(shown(table), shown(pd.DataFrame(judged)), sep="\n")
        line = {"benchmark": name, **vars(args), "device": str(device), "threads": torch.get_num_threads()}
        line["device_name"] = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        line |= {"cores": os.cpu_count(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d %H:%M")}
        rows = [row.dropna().to_dict() for _, row in table.astype(object).iterrows()]
        line |= {**figures, "targets": judged, "table": rows}
        print(json.dumps(line, default=lambda value: value.item()))
        return line

    return main


def judge(what: str, figure: float, words: str, bound: float) -> dict[str, Any]:
    """A figure with its target, and whether that is met."""
    met = figure >= bound if words == "at least" else figure <= bound
    return {"what": what, "figure": figure, "target": f"{words} {bound:.3g}", "outcome": "met" if met else "MISSED"}


def shown(table: pd.DataFrame) -> str:
    """A table for people."""
    return "" if table.empty else table.to_string(index=False, na_rep="", float_format="{:.4g}".format)


def race(
    ways: Mapping[str, Callable[[], Result]],
    rounds: int,
    warm_up: int = 1,
    prepare: Callable[[str], Any] = lambda way: None,
) -> tuple[pd.DataFrame, dict[str, Result]]:
    """Every way `rounds` times, interleaved, after `warm_up` rounds that are not counted.

    A row for each way: median, lowest and highest seconds, how many times faster than the first way it is. Then what
    each way gave last. `prepare` is told the way before every call, outside the time. PyTorch's `timer` waits for a
    GPU.
    """
    turns, given = [], {}
    for turn in range(-warm_up, rounds):
        for way in list(ways)[:: -1 if turn % 2 else 1]:
            prepare(way)
            begun = timer()
            given[way] = ways[way]()
            turns.append((way, turn, timer() - begun))
    counted = pd.DataFrame(turns, columns=["way", "turn", "s"]).query("turn >= 0").groupby("way")["s"]
    times = counted.agg(s="median", lowest_s="min", highest_s="max").loc[list(ways)]
    return times.assign(times_faster=times["s"].iloc[0] / times["s"]), given


def process_memory(pid: int | str, name: str) -> float:
    """VmRSS or VmHWM of a process in MiB. Raises OSError where the system does not say."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 1024


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative Frobenius distance, computed in float64."""
    exact = exact.double()
    return ((found.double() - exact).norm() / exact.norm()).item()
