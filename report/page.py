"""report.html: one file that needs nothing else, from a template that escapes whatever comes from the data."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path

import jinja2

from report.load import Run, dictionaries, mapping, number
from report.metrics import METRICS, TOKENS
from report.numbers import downstream_lines, metric_rows, shown
from report.style import Plate
from report.sweep import Comparison
from report.tables import comparison_table, final_table, interval

EXCERPT = 14  # lines of a traceback that are shown
WORDS = {
    TOKENS: "every answer token is predicted from the prompt and the true tokens before it; the share that "
    "is right, mean over the examples",
    "95 % interval": "Wilson score interval of the value over its n; where it is missing, none is defined",
    "immediate": "ES or GS of a batch right after its own write, before the next one",
    "retention": "ES of the edits of an earlier batch, measured after later batches were written",
    "f1_new": "downstream: mean of the classes' F1, weighted by how often a class is a label, of the likeliest choice",
}


def page(runs: Sequence[Run], found: Comparison | None, plates: Sequence[Plate]) -> str:
    """The page of one run, or with a comparison of several."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"mapping": mapping, "number": number, "dictionaries": dictionaries, "shown": shown}
    environment.globals |= {"facts": facts, "final_rows": final_rows, "excerpt": excerpt, "command": command}
    environment.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode()
    return environment.get_template("page.html.j2").render(
        title=title(runs),
        runs=runs,
        found=found,
        table=comparison_table(found) if found else final_table(runs[0]),
        plates=plates,
        glossary=glossary(runs, plates),
    )


def title(runs: Sequence[Run]) -> str:
    """What was edited, and with what."""
    groups = [dict.fromkeys(run.named(group, "name") for run in runs) for group in ("dataset", "model", "editor")]
    words = " · ".join(filter(None, (" | ".join(filter(None, names)) for names in groups)))
    if len(runs) == 1:
        return words or runs[0].name
    return f"{len(runs)} runs: {words}" if words else f"{len(runs)} runs"


def facts(run: Run) -> str:
    """Edits and steps written, and the date."""
    steps = run.events["step"]
    told = {"edits": steps[-1]["edits"], "steps": len(steps)} if steps else {}
    told |= {"warm_up_steps": sum(step["phase"] == "warm-up" for step in steps)} | mapping(run.results.get("counts"))
    counts = {name: count for name, count in told.items() if number(count) is not None}
    words = [f"{counts['edits']:,} edits"] if "edits" in counts else []
    words += [f"{counts['steps'] - counts['warm_up_steps']:,} steps"] if "steps" in counts else []
    return " · ".join(filter(None, [*words, run.date]))


def final_rows(run: Run) -> list[tuple[list[str], str]]:
    """The rows of the final table, each with the interval before editing."""
    before = [interval(row["before_low"], row["before_high"]) for row in metric_rows(run)]
    return list(zip(final_table(run)[1], before, strict=True))


def excerpt(run: Run) -> str:
    """The end of the traceback of a run that failed."""
    lines = str(run.status.get("traceback") or "").rstrip().splitlines()
    return "\n".join((["…"] if len(lines) > EXCERPT else []) + lines[-EXCERPT:])


def command(run: Run) -> str:
    """The command as it was given; for a run without results put together from its overrides."""
    told = shlex.join(["python", "main.py", *run.overrides]) if run.overrides else ""
    return str(run.results.get("command") or told)


def glossary(runs: Sequence[Run], plates: Sequence[Plate]) -> dict[str, str]:
    """The names that stand on this page, explained."""
    rows = [row for run in runs for row in metric_rows(run)]
    names = {row["metric"] for row in rows}
    names |= {name for run in runs for line in run.events["over_time"] for name in mapping(line.get("sample"))}
    found = {row.name: row.meaning for row in METRICS.values() if row.name in names}
    found |= {name: f"{found[name]}; lower is better" for name in found if METRICS[name].better == "down"}
    there = {row["protocol"] for row in rows} | {plate.name for plate in plates}
    there |= {"95 % interval"} if any(row["low"] is not None for row in rows) else set()
    there |= {key.partition("/")[2] for run in runs for line in downstream_lines(run) for key in line}
    return found | {name: words for name, words in WORDS.items() if name in there}
