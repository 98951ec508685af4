"""Run the cases and print their table: python -m tests.hostile [--cases PREFIX] [--fuzz N] [--seed 0] [--jobs 2]."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile import engine, fuzz, table


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    options.add_argument(
        "--cases", nargs="+", default=[""], metavar="PREFIX", help="those whose 'GROUP NAME' starts so"
    )
    options.add_argument("--some", type=int, metavar="N", help="about N of them, drawn from --seed")
    options.add_argument("--whole", action="store_true", help="every key with every value, not with a share of them")
    options.add_argument("--fuzz", type=int, default=0, metavar="N", help="also N drawn examples of every kind")
    options.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    options.add_argument("--jobs", type=int, default=2, help="cases at a time (default 2)")
    options.add_argument("--list", action="store_true", help="name the cases, run none")
    return options


def main() -> int:
    """Run what was asked for; 1 if anything came out as it must not."""
    args, start = parser().parse_args(), time.monotonic()
    asked = tuple(args.cases)
    cases = [case for case in table.all_cases(args.whole) if f"{case.group} {case.name}".startswith(asked)]
    cases = table.selection(cases, args.some, args.seed) if args.some is not None else cases
    cases += list(fuzz.cases(args.fuzz, args.seed)) if args.fuzz else []
    if args.list:
        print(*(f"{case.group} {case.name}" for case in cases), sep="\n")
        return 0
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        for outcome in engine.run_cases(cases, Path(scratch), args.jobs):
            outcomes.append(outcome)
            if outcome.bad:
                print(table.bad_ones([outcome]), file=sys.stderr, flush=True)
    print(table.table(outcomes), table.reasons(outcomes), table.bad_ones(outcomes), sep="\n\n")
    print(f"{time.monotonic() - start:.0f} s")
    return int(any(outcome.bad for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
