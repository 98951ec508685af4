"""report.html: one file that needs nothing else, from a template that escapes whatever comes from the data."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from report.export import comparison_table, final_table, interval
from report.glossary import EXTRA, MEANING, TOKENS
from report.load import Run, dictionaries, mapping, number
from report.numbers import downstream_lines, metric_rows, shown
from report.sweep import Comparison, reason

EXCERPT = 14  # lines of a traceback that are shown
COUNTS = {
    "edits": "edits",
    "steps": "steps, warm-up included",
    "warm_up_steps": "warm-up steps",
    "tokens": "answer tokens",
}


class Picture(NamedTuple):
    """A drawn figure as the page shows it."""

    name: str
    title: str
    caption: str
    svg: str
    wide: bool

    @property
    def source(self) -> Markup:
        """The SVG as a data URI."""
        return Markup("data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode())


def page(runs: Sequence[Run], found: Comparison | None, pictures: Sequence[Picture]) -> str:
    """The page of one run, or with a comparison of several."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"shown": shown, "is_mapping": lambda value: isinstance(value, dict)}
    table = comparison_table(found) if found else None
    return environment.get_template("page.html.j2").render(
        title=_several_title(runs) if found else _title(runs[0]),
        views=[_view(run) for run in runs],
        found=found,
        head=table[0] if table else [],
        rows=table[1] if table else [],
        pictures=pictures,
        glossary=_glossary(runs, pictures),
    )


def _title(run: Run) -> str:
    names = [run.named(group, "name") for group in ("dataset", "model", "editor")]
    return " · ".join(name for name in names if name) or run.name


def _several_title(runs: Sequence[Run]) -> str:
    groups = []
    for group in ("dataset", "model", "editor"):
        names = list(dict.fromkeys(name for run in runs if (name := run.named(group, "name"))))
        groups += [" | ".join(names)] if names else []
    return f"{len(runs)} runs: " + " · ".join(groups) if groups else f"{len(runs)} runs"


def _view(run: Run) -> dict[str, Any]:
    """Everything the template says about a run, as plain values."""
    head, rows = final_table(run)
    before = [interval(row["before_low"], row["before_high"]) for row in metric_rows(run)]
    trace = str(run.status.get("traceback") or "").rstrip().splitlines()
    failed = run.state not in ("done", "running")
    return {
        "name": run.name,
        "title": _title(run),
        "path": str(run.path),
        "state": run.state,
        "facts": " · ".join(_facts(run)),
        "error": str(run.status.get("error") or ("" if run.finished else reason(run))),
        "failed": failed,
        "traceback": "\n".join((["…"] if len(trace) > EXCERPT else []) + trace[-EXCERPT:]),
        "notes": run.notes,
        "head": head,
        "rows": list(zip(rows, before, strict=True)),
        "examples": [_example(example) for example in dictionaries(run.results.get("examples"))],
        "config": run.config,
        "about": _about(run),
        "versions": mapping(run.results.get("versions")),
        "command": _command(run),
    }


def _facts(run: Run) -> list[str]:
    counts = mapping(run.results.get("counts"))
    steps = run.events["step"]
    edits = counts.get("edits", steps[-1]["edits"] if steps else None)
    warm_up = sum(step["phase"] == "warm-up" for step in steps)
    written = len(steps) - warm_up if steps else None
    if number(counts.get("steps")) is not None:
        written = counts["steps"] - (number(counts.get("warm_up_steps")) or 0)
    words = [f"{edits:,} edits"] if number(edits) is not None else []
    words += [f"{written:,} steps"] if number(written) is not None else []
    return [*words, run.date] if run.date else words


def _example(example: dict[str, Any]) -> dict[str, str]:
    """An example's four texts; before is a dash where nothing was measured."""
    texts = {name: example.get(name) for name in ("prompt", "before", "after", "target")}
    return {name: "–" if text is None else str(text) for name, text in texts.items()}


def _about(run: Run) -> dict[str, str]:
    """Counts, memory, retries, skipped rows and where the model was saved."""
    counts = mapping(run.results.get("counts"))
    about = {word: f"{counts[key]:,}" for key, word in COUNTS.items() if number(counts.get(key)) is not None}
    memory = mapping(run.results.get("peak_memory"))
    about |= {
        f"peak memory, {k.removesuffix('_mib')}": f"{v:,} MiB" for k, v in memory.items() if number(v) is not None
    }
    skipped = mapping(run.results.get("skipped"))
    about |= {f"skipped rows of {path}": str(len(rows)) for path, rows in skipped.items() if isinstance(rows, list)}
    about |= {f"retries: {k}": shown(v) for k, v in mapping(run.results.get("retries")).items()}
    if run.results.get("model_cache_dir"):
        about["edited model"] = str(run.results["model_cache_dir"])
    return about | {"run directory": str(run.path.resolve())}


def _command(run: Run) -> str:
    """The command as it was given; for older runs put together from their overrides."""
    if run.results.get("command"):
        return str(run.results["command"])
    return shlex.join(["python", "main.py", *run.overrides]) if run.overrides else ""


def _glossary(runs: Sequence[Run], pictures: Sequence[Picture]) -> dict[str, str]:
    """The metric names that stand on this page, explained."""
    names = dict.fromkeys(row["metric"] for run in runs for row in metric_rows(run))
    for run in runs:
        for line in run.events["over_time"]:
            names |= dict.fromkeys(mapping(line.get("sample")))
    words = {name: MEANING[name] for name in MEANING if name in names}
    rows = [row for run in runs for row in metric_rows(run)]
    drawn = {picture.name for picture in pictures}
    here = {
        TOKENS: any(row["protocol"] == TOKENS for row in rows),
        "95 % interval": any(row["low"] is not None for row in rows),
        "immediate": "immediate" in drawn,
        "retention": "retention" in drawn,
        "f1_new": any(key.endswith("/f1_new") for run in runs for line in downstream_lines(run) for key in line),
    }
    return words | {name: EXTRA[name] for name, there in here.items() if there}
