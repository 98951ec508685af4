"""Every benchmark of what editing costs, each in a process of its own: python -m benchmarks.all [--out FILE.json]."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.timing import shown
from config.check import RunError
from files import write_json
from lifelong.process import run_python

NAMES = ("ridge", "whitening", "step", "evaluate", "frozen", "memory")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run them, print and write what they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.all", description=__doc__)
    parser.epilog = "--quick, --device, --threads and --rounds go to each of them"
    parser.add_argument("--out", type=Path, help="JSON file to write, its folder too")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="some of them")
    args, words = parser.parse_known_args(argv)
    found: dict[str, dict[str, Any]] = {}
    for name in args.only:
        print(f"== {name}", flush=True)
        try:
            *tables, line = run_python("-m", f"benchmarks.{name}", *words).splitlines()
        except RunError as error:
            sys.exit(f"error: {error}")
        print("\n".join(tables), flush=True)
        found[name] = json.loads(line)
    print(shown(pd.DataFrame([{"of": name} | target for name in found for target in found[name]["targets"]])))
    print(json.dumps(found), flush=True)
    if args.out:
        write_json(args.out.absolute(), found)
    return found


if __name__ == "__main__":
    main()
