"""The results page and its headline in README.md: written wholly from what the runs left."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from config.check import ConfigError
from files import read_json, write_whole

from .choose import FORMULA
from .evidence import MAIN, Evidence
from .figures import draw
from .plan import PARTS, SHORT, label, settings
from .runner import Runner
from .timing import taken
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
    """What is said of the runs in a runner's folder.

    Raises:
        ConfigError: nothing was run there, or runs of another scale.
    """

    def __init__(self, runner: Runner) -> None:
        try:
            self.made = read_json(runner.out / "claims.json")
        except FileNotFoundError:
            raise ConfigError(f"--out {runner.out}: nothing was run there; run without --report-only first") from None
        if self.made["scale"] != runner.scale.name:
            raise ConfigError(f"--out {runner.out}: holds a {self.made['scale']} run, not a {runner.scale.name} one")
        self.runner, self.settings, self.evidence = runner, settings(runner.scale), Evidence(runner.out)
        self.verdicts = {part: judge(part, self.evidence) for part in PARTS}
        self.taken = taken(runner.out)

    def write(self, path: Path) -> Path:
        """Write the page and, in figures/ beside it, the figures; returns its path."""
        for part, verdict in self.verdicts.items():
            if verdict.outcome != NOT_RUN:
                draw(part, self.evidence, self.settings, path.parent / "figures")
        there, minutes = self._there(self.settings), self.taken["seconds"].sum() / 60
        before = {metric: self.evidence.pooled("stableedit", metric, before=True) for metric in MAIN}
        content = {
            "command": "sh run.sh claims" + ("_short" if self.runner.scale.name == SHORT.name else ""),
            "took": f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes",
            "run": next(iter(self.evidence.runs(there[0]).values())) if there else None,
            "before": [f"{metric} {found.text()}" for metric, found in before.items() if found],
            "tables": {part: markdown(self._rows(part)) for part in PARTS},
            "gains": {part: markdown(self._gains(part)) for part in PARTS},
            "sweeps": markdown(self._sweeps()),
            "commands": {name: self._command(name) for name in there},
        }
        text = TEMPLATES.get_template("RESULTS.md.j2").render(content, page=self, parts=PARTS, formula=FORMULA)
        write_whole(path, text)
        return path

    def _there(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.evidence.runs(name)]

    def missing(self, part: str) -> list[str]:
        """The settings of a part without a finished run."""
        return [name for name in PARTS[part].settings if not self.evidence.runs(name)]

    def _row(self, name: str, title: str) -> dict[str, Any]:
        evidence, abilities = self.evidence, self.evidence.downstream(name)
        runs, scored = evidence.runs(name), evidence.pooled(name, "ES")
        asked = [run.config["downstream"] for run in runs.values()]
        questions = max(told["number_of_tests"] * len(told["tasks"]) for told in asked)
        minutes = self.taken.query("stage == 'final' and setting == @name")["seconds"].mean() / 60
        estimates = {metric: evidence.pooled(name, metric) for metric in METRICS} | {FIRST: evidence.retained(name)}
        return {
            "setting": title,
            "seeds": ", ".join(map(str, runs)),
            "edits scored": f"{scored.n:,}" if scored else "-",
            **{metric: found.text() if found else "-" for metric, found in estimates.items()},
            ABILITIES: f"{abilities[0]:.3f}, {abilities[1]:.3f} ({questions})" if abilities else "-",
            "minutes": "-" if pd.isna(minutes) else f"{minutes:.1f}",
        }

    def _rows(self, part: str) -> list[dict[str, Any]]:
        return [self._row(name, label(part, self.settings[name])) for name in self._there(PARTS[part].settings)]

    def _gains(self, part: str) -> list[dict[str, Any]]:
        base, *others = PARTS[part].settings
        rows = []
        for name in others if PARTS[part].compared and self.verdicts[part].outcome != NOT_RUN else ():
            found = gains(self.evidence, name, base)
            cells = {metric: found[metric].text(sign=True) if metric in found else "-" for metric in JUDGED}
            rows += [{"setting": label(part, self.settings[name]), **cells}] if found else []
        return rows

    def _sweeps(self) -> Iterable[dict[str, Any]]:
        for setting in self.settings.values():
            row = {"setting": setting.label, "chosen": "not run", "at an edge": "", "the sweep": ""}
            found = self.runner.choice(setting)
            if found is not None:
                shared = f" (as {self.settings[setting.tuned_as].label})" if setting.tuned_as else ""
                row["chosen"] = found.point + shared
                row["at an edge"] = "grid of two" if len(found.scores) == 2 else "yes" if found.edge else "no"
                scores = (f"{name} {'failed' if score is None else f'{score:+.4f}'}" for name, score in found.scores.items())
                row["the sweep"] = "; ".join(scores)
            yield row

    def _command(self, name: str) -> str:
        overrides = next(iter(self.evidence.runs(name).values())).overrides
        words = [word.replace(str(self.runner.out), "OUT") for word in overrides if not word.startswith("resume=")]
        return shlex.join(["python", "main.py", *words])

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
        names = self._there([*PARTS["editors"].settings, "plus", "plus_tuned"])
        runs = [run for name in names for run in self.evidence.runs(name).values()]
        edits = max((run.results["counts"]["edits"] for run in runs), default=0)
        table = pd.DataFrame(self._row(name, self.settings[name].label) for name in names)
        shown = table.rename(columns={"setting": "editor"})[HEADLINE] if names else table
        content = {"page": page.relative_to(readme.parent).as_posix(), "edits": f"{edits:,}" if edits else ""}
        content |= {"parts": PARTS, "verdicts": self.verdicts, "table": markdown(shown.to_dict("records"))}
        block = TEMPLATES.get_template("README.md.j2").render(content)
        write_whole(readme, f"{before}{begin}\n{block}{end}{after}")
