"""What a run leaves, and the page that shows it: `python -m report RUN_DIR [RUN_DIR ...] [--out DIR]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def make(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write report.html, figures/, table.csv, table.md and table.tex of a run, of several or a sweep; returns the page.

    `out` is RUN_DIR/report by default, outputs/comparison for several folders; what a run lacks is left out.

    Raises:
        config.check.ConfigError: a folder that holds neither a run nor a sweep, or an `out` that cannot be used.
    """
    from report.page import make as build  # matplotlib and pandas load only where a report is made

    return build([Path(run_dir) for run_dir in run_dirs], out)


def sweep_table(sweep_dir: Path) -> str:
    """The jobs of a sweep as a plain-text table: varied keys, ES, GS, LS, state; the best job is marked."""
    from report.comparison import sweep_text
    from report.load import load_runs

    return sweep_text(load_runs([Path(sweep_dir)]))
