"""Every benchmark of what editing costs, each in a process of its own: python -m benchmarks.all [--out FILE.json].

Prints each one's table, then a summary of the targets, then one JSON line; with --out the same goes to a file.
(benchmarks.glue and benchmarks.scale measure other things and are commands of their own.)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from files import write_json
from report.terminal import aligned

NAMES = ("ridge", "whitening", "step", "evaluate", "frozen", "memory")
PROJECT = Path(__file__).resolve().parent.parent


def run(name: str, words: list[str]) -> dict[str, Any]:
    """One benchmark's JSON line, with the seconds that all of it took.

    Raises:
        subprocess.CalledProcessError: it failed; what it said is on stderr.
    """
    print(f"== {name}", flush=True)
    begun = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{name}", *words]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    *table, line = done.stdout.splitlines()
    print("\n".join(table), end="\n\n", flush=True)
    return json.loads(line) | {"total_s": time.perf_counter() - begun}


def summary(found: dict[str, dict[str, Any]]) -> str:
    """Every target with its figure."""
    rows = []
    for name, line in found.items():
        for label, target in line["targets"].items():
            bound = f"<= {target['at_most']:.3g}" if "at_most" in target else f">= {target['at_least']:.3g}"
            rows.append((name, label, f"{target['value']:.3g}", bound, "met" if target["met"] else "MISSED"))
    return aligned(("benchmark", "what", "figure", "target", ""), rows, left=(0, 1, 4))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run them, print and write what they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.all", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="some of them")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, says nothing of speed")
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda:N (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as PyTorch chooses)")
    parser.add_argument("--rounds", type=int, help="rounds of every variant (default: each benchmark's own)")
    args = parser.parse_args(argv)
    if args.out and not args.out.absolute().parent.is_dir():
        sys.exit(f"error: --out {args.out}: no such folder {args.out.absolute().parent}; make it first")
    words = ["--device", args.device, *(["--quick"] if args.quick else [])]
    for name in ("threads", "rounds"):
        words += [f"--{name}", str(getattr(args, name))] if getattr(args, name) is not None else []
    begun = time.perf_counter()
    try:
        found = {name: run(name, words) for name in args.only}
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(error.cmd[1:])} ended with status {error.returncode}")
    line = {"benchmark": "all", "quick": args.quick, "total_s": time.perf_counter() - begun, "benchmarks": found}
    print(summary(found))
    if args.out:
        write_json(args.out.absolute(), line)
    print(json.dumps(line))
    return line


if __name__ == "__main__":
    main()
