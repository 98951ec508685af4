"""The results page and its headline in README.md: written wholly from what the runs left."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from config.check import ConfigError
from files import read_json, write_whole

from .evidence import MAIN, Evidence, minutes
from .figures import draw
from .plan import PARTS, label, settings
from .runner import FORMULA, Runner
from .verdicts import JUDGED, NOT_RUN, gains, judge

BEGIN, END = "<!-- claims: written by python -m claims -->", "<!-- claims end -->"
METRICS = (*MAIN, "person_score", "ES_exact", "GS_exact", "KS")
FIRST, ABILITIES = "ES of the first tenth", "downstream, before and after (questions)"
HEADLINE = ["editor", *MAIN, "ES_exact", "KS", FIRST, ABILITIES]
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, keep_trailing_newline=True)


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as a table; "" where there are none."""
    table = pd.DataFrame(rows)
    lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()] if len(table) else []
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


class Page:
    """What is said of the runs in a runner's folder; the templates ask it.

    Raises:
        ConfigError: nothing was run there, or runs of another scale.
    """

    parts, formula = PARTS, FORMULA

    def __init__(self, runner: Runner) -> None:
        self.runner, self.scale, self.settings = runner, runner.scale, settings(runner.scale)
        try:
            self.made = read_json(runner.out / "claims.json")
        except FileNotFoundError:
            raise ConfigError(f"--out {runner.out}: nothing was run there; run without --report-only first") from None
        if self.made["scale"] != self.scale.name:
            raise ConfigError(f"--out {runner.out}: holds a {self.made['scale']} run, not a {self.scale.name} one")
        self.evidence = Evidence(runner.out)
        self.verdicts = {part: judge(part, self.evidence) for part in PARTS}
        self.run = {name: next(iter(self.evidence.runs[name].values())) for name in self.there(self.settings)}
        self.minutes = sum(minutes(path.parent) or 0 for path in runner.out.glob("*/*/*/status.json"))

    def there(self, names: Iterable[str]) -> list[str]:
        """The settings that have a finished run."""
        return [name for name in names if self.evidence.runs[name]]

    def write(self, path: Path) -> Path:
        """Write the page and, in figures/ beside it, the figures; returns its path."""
        for part, verdict in self.verdicts.items():
            if verdict.outcome != NOT_RUN:
                draw(part, self.evidence, self.settings, path.parent / "figures")
        write_whole(path, TEMPLATES.get_template("RESULTS.md.j2").render(page=self))
        return path

    def before(self) -> str:
        """The scores before any edit."""
        found = {metric: self.evidence.pooled("stableedit", metric, "before") for metric in MAIN}
        return ", ".join(f"{metric} {estimate.text()}" for metric, estimate in found.items() if estimate)

    def table(self, part: str) -> str:
        """What the settings of a part left."""
        there = self.there(PARTS[part].settings)
        return markdown({"setting": label(part, self.settings[name])} | self.row(name) for name in there)

    def row(self, name: str) -> dict[str, str]:
        """A setting's numbers by column."""
        runs, scored = self.evidence.runs[name], self.evidence.pooled(name, "ES")
        estimates = {metric: self.evidence.pooled(name, metric) for metric in METRICS}
        estimates |= {FIRST: self.evidence.retained(name)}
        return {
            "seeds": ", ".join(map(str, runs)),
            "edits scored": f"{scored.n:,}" if scored else "-",
            **{column: found.text() if found else "-" for column, found in estimates.items()},
            ABILITIES: self.evidence.downstream(name),
            "minutes": f"{pd.Series([minutes(run.path) for run in runs.values()]).mean():.1f}",
        }

    def gains(self, part: str) -> str:
        """The settings of a part minus its first one, metric by metric."""
        base, *others = PARTS[part].settings
        rows = []
        for name in self.there(others) if PARTS[part].compared and self.evidence.runs[base] else ():
            found = gains(self.evidence, name, base)
            cells = {metric: found[metric].text(sign=True) if metric in found else "-" for metric in JUDGED}
            rows.append({"setting": label(part, self.settings[name])} | cells)
        return markdown(rows)

    def sweeps(self) -> str:
        """What every setting's sweep chose."""
        return markdown(self._sweeps())

    def _sweeps(self) -> Iterator[dict[str, str]]:
        for setting in self.settings.values():
            found = self.runner.choice(setting)
            row = {"setting": setting.label, "chosen": "not run", "at an edge": "", "the sweep": ""}
            if found is not None:
                shared = f" (as {setting.tuned_as.label})" if setting.tuned_as else ""
                scores = {name: "failed" if score is None else f"{score:+.4f}" for name, score in found.scores.items()}
                row["chosen"] = found.point + shared
                row["at an edge"] = "grid of two" if len(scores) == 2 else "yes" if found.edge else "no"
                row["the sweep"] = "; ".join(f"{name} {score}" for name, score in scores.items())
            yield row

    def command(self, name: str) -> str:
        """How a setting's first long run was made."""
        words = [word for word in self.run[name].overrides if not word.startswith("resume=")]
        return shlex.join(["python", "main.py", *(word.replace(str(self.runner.out), "OUT") for word in words)])

    def update(self, readme: Path, page: Path) -> None:
        """Put outcomes, the figure and the table of the editors between the markers of README.md.

        Raises:
            ConfigError: the markers are not there.
        """
        before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ConfigError(f"{readme}: lacks the lines {BEGIN} and {END}")
        draw("editors", self.evidence, self.settings, page.parent / "figures")
        names = self.there([*PARTS["editors"].settings, "plus", "plus_tuned"])
        rows = [{"editor": self.settings[name].label} | self.row(name) for name in names]
        content = {"table": markdown({column: row[column] for column in HEADLINE} for row in rows)}
        content["edits"] = f"{max([self.run[name].results['counts']['edits'] for name in names], default=0):,}"
        block = TEMPLATES.get_template("README.md.j2").render(
            content, page=self, path=page.relative_to(readme.parent).as_posix()
        )
        write_whole(readme, f"{before}{begin}\n{block}{end}{after}")
