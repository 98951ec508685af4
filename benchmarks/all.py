"""Every benchmark of what editing costs, each in a process of its own: python -m benchmarks.all [--out FILE.json]."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.timing import bound
from config.check import RunError
from files import write_json
from lifelong.process import run_python

NAMES = ("ridge", "whitening", "step", "evaluate", "frozen", "memory")


def run(name: str, words: list[str]) -> dict[str, Any]:
    """One benchmark's JSON line, with the seconds that all of it took. Raises RunError where it failed."""
    print(f"== {name}", flush=True)
    begun = time.perf_counter()
    *table, line = run_python("-m", f"benchmarks.{name}", *words).splitlines()
    print("\n".join(table), end="\n\n", flush=True)
    return json.loads(line) | {"total_s": time.perf_counter() - begun}


def summary(found: dict[str, dict[str, Any]]) -> str:
    """Every target with its figure."""
    rows = [
        (name, label, f"{target['value']:.3g}", bound(target), "met" if target["met"] else "MISSED")
        for name, line in found.items()
        for label, target in line["targets"].items()
    ]
    return pd.DataFrame(rows, columns=["benchmark", "what", "figure", "target", ""]).to_string(index=False)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run them, print and write what they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.all", description=__doc__)
    parser.epilog = "--quick, --device, --threads and --rounds go to each of them"
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="some of them")
    args, words = parser.parse_known_args(argv)
    if args.out and not args.out.absolute().parent.is_dir():
        sys.exit(f"error: --out {args.out}: no such folder {args.out.absolute().parent}; make it first")
    begun = time.perf_counter()
    try:
        found = {name: run(name, words) for name in args.only}
    except RunError as error:
        sys.exit(f"error: {error}")
    seconds = time.perf_counter() - begun
    line = {"benchmark": "all", "quick": "--quick" in words, "total_s": seconds, "benchmarks": found}
    print(summary(found))
    if args.out:
        write_json(args.out.absolute(), line)
    print(json.dumps(line))
    return line


if __name__ == "__main__":
    main()
