"""The results page and its headline in README.md: written wholly from what the runs left, by RESULTS.md.j2."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from config.check import ConfigError
from files import read_json, write_whole

from .evidence import MAIN, Evidence, minutes
from .figures import draw
from .plan import PARTS, label, settings
from .runner import Runner
from .verdicts import JUDGED, gains, judge

BEGIN, END = "<!-- claims: written by python -m claims -->", "<!-- claims end -->"
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, keep_trailing_newline=True)
TEMPLATES.filters["minutes"] = minutes
TEMPLATES.globals |= {"parts": PARTS, "main": [*MAIN], "judged": JUDGED, "label": label, "gains": gains}


class Page:
    """What is said of the runs in a runner's folder; ConfigError where it has none, or those of another scale."""

    def __init__(self, runner: Runner) -> None:
        path = runner.out / "claims.json"
        if not path.is_file():
            raise ConfigError(f"--out {runner.out}: nothing was run there; run without --report-only first")
        if (made := read_json(path))["scale"] != runner.scale.name:
            raise ConfigError(f"--out {runner.out}: holds a {made['scale']} run, not a {runner.scale.name} one")
        self.settings, self.evidence = settings(runner.scale), Evidence(runner.out)
        found = {name: self.evidence.runs[name] for name in self.settings if self.evidence.runs[name]}
        self.content: dict[str, Any] = {
            **{"made": made, "scale": runner.scale, "choice": runner.choice, "settings": self.settings},
            **{"evidence": self.evidence, "runs": found},
            "verdicts": {part: judge(part, self.evidence) for part in PARTS},
            "total": sum(minutes(path.parent) for path in runner.out.glob("*/*/*/status.json")),
            "command_of": lambda name: command(next(iter(found[name].values())).overrides, runner.out),
        }

    def write(self, path: Path) -> Path:
        """Write the page and, in figures/ beside it, the figures; returns its path."""
        for part in PARTS:
            draw(part, self.evidence, self.settings, path.parent / "figures")
        write_whole(path, TEMPLATES.get_template("RESULTS.md.j2").render(self.content))
        return path

    def update(self, readme: Path, page: Path) -> None:
        """Put outcomes, the figure and the table of the editors between README.md's markers; ConfigError without."""
        found = re.fullmatch(f"(.*{BEGIN}\n).*({END}.*)", readme.read_text(encoding="utf-8"), re.DOTALL)
        if not found:
            raise ConfigError(f"{readme}: lacks the lines {BEGIN} and {END}")
        path = page.relative_to(readme.parent)
        block = TEMPLATES.get_template("README.md.j2").render(self.content, page=path.as_posix(), folder=path.parent)
        write_whole(readme, found[1] + block + found[2])


def command(overrides: list[str], out: Path) -> str:
    """How a run was made, its output folder named OUT."""
    words = [word.replace(str(out), "OUT") for word in overrides if not word.startswith("resume=")]
    return shlex.join(["python", "main.py", *words])
