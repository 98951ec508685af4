"""Put a report together: read, draw, write."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import matplotlib

from config.check import ConfigError
from files import write_whole
from report.comparison import comparison_figures
from report.diagnostics import diagnostic_figures
from report.figures import score_figures
from report.load import load_runs
from report.page import page
from report.style import LOOKS, save
from report.sweep import compare
from report.tables import comparison_table, csv_table, final_table, latex, markdown

SEVERAL = Path("outputs/comparison")


def make(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """As report.make."""
    runs = load_runs(run_dirs)
    out = out or (run_dirs[0] / "report" if len(run_dirs) == 1 else SEVERAL)
    if out.resolve() == Path(__file__).resolve().parent:
        raise ConfigError(f"--out {out}: is the program's own folder; name another")
    found = compare(runs) if len(runs) > 1 else None
    drawn = comparison_figures(found) if found else chain(score_figures(runs[0]), diagnostic_figures(runs[0]))
    with matplotlib.rc_context(LOOKS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks
        plates = [plate for plate in drawn if plate is not None]
        for plate in plates:
            png, plate.svg = save(plate.figure)
            write_whole(out / "figures" / f"{plate.name}.png", png)
            write_whole(out / "figures" / f"{plate.name}.svg", plate.svg)
    table = comparison_table(found) if found else final_table(runs[0])
    write_whole(out / "table.csv", csv_table(runs))
    write_whole(out / "table.md", markdown(*table))
    write_whole(out / "table.tex", latex(*table))
    write_whole(out / "report.html", page(runs, found, plates))
    return out / "report.html"
