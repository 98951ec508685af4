"""The committed results page is what the generator makes of the numbers on it: plan, words, tables and commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from claims.page import BEGIN, END, TEMPLATES, command
from claims.plan import FULL, PARTS, settings
from claims.runner import Choice, Runner
from claims.verdicts import JUDGED, Verdict
from tests.tiny import PROJECT

PAGE = (PROJECT / "docs" / "RESULTS.md").read_text(encoding="utf-8")
OUT = Path("/somewhere/outputs/claims")
SETTINGS = settings(FULL)


@dataclass(frozen=True)
class Told:
    """An estimate as it stands on the page."""

    words: str
    n: int = 0

    def text(self, **_: Any) -> str:
        return self.words


def rows(text: str, head: str) -> Iterator[dict[str, str]]:
    """The rows of the first table whose head starts so, by column."""
    columns, _, *lines = re.search(rf"^\| {re.escape(head)}.*?(?=\n\n)", text, re.M | re.S)[0].splitlines()
    for line in lines:
        yield dict(zip(*(re.split(r" \| ", one.strip("| ")) for one in (columns, line)), strict=True))


def section(name: str) -> str:
    return re.search(rf'<a id="{name}">.*?(?=\n## |\Z)', PAGE, re.S)[0]


def numbers() -> dict[str, dict[str, str]]:
    """Every setting's row."""
    return {
        name: row
        for part in PARTS
        for name, row in zip(PARTS[part].settings, rows(section(part), "setting | seeds"), strict=True)
    }


@pytest.fixture
def content(monkeypatch) -> dict[str, Any]:
    """What the templates are given, read back from the page."""
    told, sweeps = numbers(), {row["setting"]: row for row in rows(PAGE, "setting | chosen")}
    before = dict(re.findall(r"(ES|GS|LS) ([\d.]+ \(.*?\))", re.search("Before any edit: .*", PAGE)[0]))
    gains = {
        name: {metric: Told(row[metric]) for metric in JUDGED}
        for part in PARTS.values() if part.compared
        for name, row in zip(part.settings[1:], rows(section_of(part), "setting | ES"), strict=True)
    }  # fmt: skip

    def pooled(name: str, metric: str, side: str = "value") -> Told | None:
        words = before[metric] if side == "before" else told[name][metric]
        return None if words == "-" else Told(words, int(told[name]["edits scored"].replace(",", "")))

    def choice(setting: Any) -> Choice:
        row = sweeps[setting.label]
        scores = {name: float(score) for name, score in re.findall(r"(lr_\S+) ([+-][\d.]+)", row["the sweep"])}
        return Choice(row["chosen"].split(" (as ")[0], scores, row["at an edge"] == "yes")

    def overrides(name: str) -> list[str]:
        job = Runner(FULL, OUT).final(SETTINGS[name], choice(SETTINGS[name]).point, 0, knowns=True)
        return list(job.words)

    model, sites = re.search(r"a step, (\S+) edited at (.*)\.", PAGE).groups()
    versions = dict(one.split(" ") for one in re.search(r"Versions: (.*)\.", PAGE)[1].split(", "))
    counts = {"edits": FULL.num_seq * FULL.n_edits}
    run = {"results": {"versions": versions, "counts": counts}}
    run["config"] = {"model": {"name": model, "edit_modules": sites.split(", ")}}
    runs = {
        name: {
            int(seed): SimpleNamespace(**run, path=float(told[name]["minutes"]))
            for seed in told[name]["seeds"].split(", ")
        }
        for name in SETTINGS
    }
    total, hours, at_once, cores, cpu = re.search(
        r"(\d+) long runs and their sweeps took ([\d.]+) hours, added up; (\d) ran at a time on (\d) cores \((.*)\)\.",
        PAGE,
    ).groups()
    others = {"others": dict.fromkeys(range(int(total) - sum(map(len, runs.values()))))}  # of settings that have left
    evidence = SimpleNamespace(
        pooled=pooled,
        retained=lambda name: Told(told[name]["ES of the first tenth"]),
        downstream=lambda name: told[name]["downstream, before and after (questions)"],
        runs=runs | others,
    )
    outcomes = [re.search(r"\*\*(.*?)\.\*\* (.*)", section(part)).groups() for part in PARTS]
    monkeypatch.setitem(TEMPLATES.filters, "minutes", lambda minutes: minutes)
    monkeypatch.setitem(TEMPLATES.globals, "gains", lambda _, name, base: gains[name])
    return {
        "made": {"at_once": at_once, "cores": cores, "cpu": cpu}, "scale": FULL, "choice": choice, "settings": SETTINGS,
        "evidence": evidence, "runs": runs, "total": float(hours) * 60,
        "verdicts": {part: Verdict(said.lower(), words) for part, (said, words) in zip(PARTS, outcomes, strict=True)},
        "command_of": lambda name: command(overrides(name), OUT),
    }  # fmt: skip


def section_of(part: Any) -> str:
    return section(next(name for name, found in PARTS.items() if found is part))


def test_the_page_is_what_its_numbers_make(content):
    assert TEMPLATES.get_template("RESULTS.md.j2").render(content) == PAGE


def test_the_readme_shows_what_the_page_says(content):
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    block = TEMPLATES.get_template("README.md.j2").render(content, page="docs/RESULTS.md", folder="docs")
    assert f"{BEGIN}\n{block}{END}" in readme


def test_every_figure_is_there():
    for part in PARTS:
        assert (PROJECT / "docs" / "figures" / f"{part}.svg").read_text(encoding="utf-8").startswith("<svg")
