"""Write the report of finished, failed or running runs: python -m report RUN_DIR [RUN_DIR ...] [--out DIR]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import report
from config.check import ConfigError
from report.load import run_folders

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m report", description=__doc__)
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="run or sweep directory")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (RUN_DIR/report)")
    given = parser.parse_args()
    try:
        page = report.make(given.run_dirs, given.out)
        for folder in given.run_dirs:
            if run_folders(folder) != [folder]:
                print(report.sweep_table(folder))
    except (ConfigError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"written to {page}")
