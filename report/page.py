"""A report: figures, tables, and report.html, one file that needs nothing else and escapes whatever is data."""

from __future__ import annotations

import base64
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path

import jinja2
import matplotlib

from config.check import ConfigError
from files import write_whole
from report.comparison import Comparison, compare, comparison_figures
from report.figures import run_figures
from report.load import Run, load_runs
from report.metrics import METRICS
from report.numbers import downstream_lines, metric_rows, shown
from report.style import LOOKS, Plate, save
from report.tables import comparison_table, csv_table, final_table, latex, markdown

HERE = Path(__file__).parent
SEVERAL = Path("outputs/comparison")


def make(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """As report.make."""
    runs = load_runs(run_dirs)
    out = out or (run_dirs[0] / "report" if len(run_dirs) == 1 else SEVERAL)
    if out.resolve() == HERE.resolve():
        raise ConfigError(f"--out {out}: is the program's own folder; name another")
    found = compare(runs) if len(runs) > 1 else None
    with matplotlib.rc_context(LOOKS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks
        plates = [plate for plate in (comparison_figures(found) if found else run_figures(runs[0])) if plate]
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


def page(runs: Sequence[Run], found: Comparison | None, plates: Sequence[Plate]) -> str:
    """The page of one run, or with a comparison of several."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"base64": lambda text: base64.b64encode(text.encode()).decode(), "shown": shown}
    environment.globals |= {"metric_rows": metric_rows, "final_table": final_table, "quoted": shlex.join}
    rows = [row for run in runs for row in metric_rows(run)]
    samples = [line["sample"] for run in runs for line in run.events["over_time"]]
    return environment.get_template("page.html.j2").render(
        runs=runs,
        found=found,
        table=comparison_table(found) if found else final_table(runs[0]),
        plates=plates,
        drawn={plate.name for plate in plates},
        metrics=METRICS.values(),
        measured={row["metric"] for row in rows}.union(*samples),
        protocols={row["protocol"] for row in rows},
        intervals=any(row["low"] is not None for row in rows),
        downstream=any(key.endswith("/f1_new") for run in runs for line in downstream_lines(run) for key in line),
    )
