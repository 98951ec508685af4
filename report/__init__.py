"""What a run leaves, and the page that shows it: `python -m report RUN_DIR [RUN_DIR ...] [--out DIR]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def make(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one run, of several side by side, or of a sweep; returns the path of report.html.

    See report.build.make. What a run lacks is left out.

    Raises:
        config.check.ConfigError: a folder that holds neither a run nor a sweep.
    """
    from report.build import make as build  # matplotlib loads only where figures are drawn

    return build([Path(run_dir) for run_dir in run_dirs], out)


def sweep_table(sweep_dir: Path) -> str:
    """The jobs of a sweep as a plain-text table: varied keys, ES, GS, LS, state; the best job is marked."""
    from report.load import load_runs
    from report.sweep import text_table

    return text_table(load_runs([Path(sweep_dir)]))
