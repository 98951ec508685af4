"""The claims of the paper as one command: python -m claims [--short] [--only PART ...] [--jobs N] [--list] ...

Runs what is not done yet, one run per core at a time, and writes the results page: docs/RESULTS.md for the full
run, OUT/RESULTS.md for the short one. It may be stopped at any moment and started again.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from config.check import ConfigError, RunError
from data.base import DataError
from data.source import PROJECT

from .page import Page
from .plan import FULL, PARTS, SHORT, Scale, chosen_settings
from .runner import Runner, state

COMMITTED = PROJECT / "docs" / "RESULTS.md"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m claims", description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="few edits, in a quarter of an hour on two cores")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, help="where the runs lie (default: outputs/claims, outputs/claims_short)")
    parser.add_argument("--with", dest="extra", nargs="+", default=[], metavar="KEY=VALUE", help="for every run")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: one per core, at most 4)")
    parser.add_argument("--seeds", type=int, help="long runs of a headline setting, at most (default: all, 3)")
    parser.add_argument("--list", action="store_true", help="show the parts and their runs, run nothing")
    parser.add_argument("--report-only", action="store_true", help="write the page from what is there")
    return parser.parse_args()


def show(runner: Runner, parts: list[str]) -> None:
    """The parts, and every run that they need with its state."""
    for part in parts:
        names = [setting.name for setting in chosen_settings(runner.scale, [part])]
        print(f"{part:14} {PARTS[part].title}\n{'':14} {', '.join(names)}")
    for setting in chosen_settings(runner.scale, parts):
        finals = runner.finals(setting)
        for job in [*([] if setting.tuned_as else runner.sweep(setting)), *finals]:
            print(f"{state(job, runner.out):9} {job.path}")
        if not finals:
            print(f"{'waits':9} final/{setting.name}")


def page_path(scale: Scale, out: Path) -> Path:
    """Where the page goes: only a full run in its own place writes the committed one."""
    committed = scale.name == FULL.name and out.resolve() == (PROJECT / "outputs" / "claims").resolve()
    return COMMITTED if committed else out / "RESULTS.md"


def main() -> int:
    """Run, write, print the page's path; the exit status is 1 where a run failed."""
    args = arguments()
    scale = SHORT if args.short else FULL
    scale = replace(scale, seeds=max(1, min(args.seeds or scale.seeds, scale.seeds)))
    out = args.out or PROJECT / "outputs" / ("claims_short" if args.short else "claims")
    runner, parts = Runner(scale, out, args.extra, at_once=args.jobs), args.only or list(PARTS)
    if args.list:
        show(runner, parts)
        return 0
    try:
        if not args.report_only:
            out.mkdir(parents=True, exist_ok=True)
            with FileLock(out / ".lock", timeout=0):
                runner.prepare()
                runner.run(parts)
        page, path = Page(runner), page_path(scale, out)
        print(page.write(path))
        if path == COMMITTED:
            page.update(PROJECT / "README.md", path)
    except (ConfigError, DataError, RunError, Timeout) as error:
        busy = f"--out {out}: another python -m claims runs there"
        print(f"error: {busy if isinstance(error, Timeout) else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 1 if runner.failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that is stopped saves its state first
    sys.exit(main())
