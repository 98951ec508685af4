"""The headline of the results page in README.md, between two markers, so that nothing there is typed by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from config.check import ConfigError

from .evidence import MAIN, Evidence
from .figures import draw
from .page import ABILITIES, TITLES, abilities_cell
from .plan import PARTS, Setting, label, settings
from .runner import Runner
from .verdicts import judge

BEGIN, END = "<!-- claims: written by python -m claims -->", "<!-- claims end -->"
FIGURE = "editors"
SHOWN = (*MAIN, "ES_exact", "KS")


def update(runner: Runner, readme: Path, page: Path) -> None:
    """Put outcomes, the figure and the table of the editors between the markers.

    Raises:
        ConfigError: the markers are not there.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{readme}: lacks the lines {BEGIN} and {END}")
    evidence, there = Evidence(runner.out), settings(runner.scale)
    draw(FIGURE, evidence, there, page.parent / "figures")
    block = "\n".join(_block(evidence, there, page.relative_to(readme.parent).as_posix()))
    scratch = readme.with_name(f".{readme.name}")
    scratch.write_text(f"{before}{begin}\n{block}\n{end}{after}", encoding="utf-8")
    os.replace(scratch, readme)


def _block(evidence: Evidence, there: dict[str, Setting], page: str) -> Iterator[str]:
    folder = page.rpartition("/")[0]
    yield f"| tried here ([all of it]({page})) | outcome |\n| --- | --- |"
    for number, part in enumerate(PARTS, 1):
        yield f"| [{number}. {TITLES[part]}]({page}#{part}) | {judge(part, evidence).outcome} |"
    names = [name for name in (*PARTS["editors"], "plus", "plus_tuned") if evidence.runs(name)]
    if not names:
        return
    edits = max(run.results["counts"]["edits"] for name in names for run in evidence.runs(name).values())
    yield f"\n![ES, GS and LS of the five editors after {edits:,} edits]({folder}/figures/{FIGURE}.svg)\n"
    yield f"After {edits:,} sequential edits, with 95 % intervals:\n"
    head = ["editor", *SHOWN, "ES of the first tenth", ABILITIES]
    yield f"| {' | '.join(head)} |\n" + "| --- " * len(head) + "|"
    for name in names:
        cells = [label("editors", there[name])]
        cells += [found.text() if found else "-" for found in (evidence.pooled(name, metric) for metric in SHOWN)]
        kept = evidence.retained(name)
        cells += [kept.text() if kept else "-", abilities_cell(evidence, name)]
        yield f"| {' | '.join(cells)} |"
