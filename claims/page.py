"""The results page: written wholly from what the runs left."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from config.check import ConfigError
from report.load import Run

from .choose import FORMULA
from .evidence import MAIN, Evidence
from .figures import draw
from .plan import PARTS, SHORT, Scale, Setting, label, settings
from .runner import Runner
from .stats import Estimate
from .timing import seconds
from .verdicts import COMPARED, JUDGED, NOT_RUN, Verdict, gains, judge

TITLES = {
    "normalization": "Without lifelong normalization editing collapses; with it, it does not",
    "cumulative": "Positive cumulative effect: immediate success rises with the edits before it",
    "warmup": "Warm-up: where it runs",
    "whitening": "Full whitening against the diagonal, and alpha",
    "shifts": "Shift norms stay bounded, successive shifts become more orthogonal",
    "editors": "The five editors",
    "beyond": "Beyond the paper: weighted ridge, relative floors, shrinkage, whitened keys, statistics per site",
    "precision": "Beyond the paper: float32 masters on bfloat16 weights",
    "sites": "Beyond the paper: stableedit_plus at other sites",
    "questions": "Beyond the paper: stableedit_plus on other data",
    "questions_step": "Beyond the paper: stableedit_plus on other data, with the step size of facts",
}
CAPTIONS = {
    "normalization": "ES (of the sampled edits written so far) and LS against edits; means over the seeds. The sample "
    "is drawn from the edits that a run scores: where these differ in number the curves are of different edits.",
    "cumulative": "ES and GS of a batch right after it was written; means over the seeds.",
    "warmup": "After the last edit, with 95 % intervals.",
    "whitening": "After the last edit, with 95 % intervals; each alpha at its own best step size.",
    "shifts": "Means over the sites, step by step, first seed.",
    "editors": "After the last edit, with 95 % intervals.",
    "beyond": "After the last edit, with 95 % intervals.",
    "precision": "After the last edit, with 95 % intervals; the step size is StableEdit's choice in float32.",
    "sites": "Layers 26 to 28. After the last edit, with 95 % intervals; both with StableEdit's step size there.",
    "questions": "Questions in the schema of zsRE. After the last edit, with 95 % intervals; both with StableEdit's "
    "step size there.",
    "questions_step": "As above, both with the step size that StableEdit's sweep chose on facts.",
}
ABILITIES = "downstream, before and after (questions)"
COLUMNS = (*MAIN, "person_score", "ES_exact", "GS_exact", "KS")


def write(runner: Runner, page: Path) -> Path:
    """Write the page and, in figures/ beside it, the figures; returns its path.

    Raises:
        ConfigError: nothing was run in the runner's folder, or runs of another scale.
    """
    made = read_made(runner)
    evidence, there = Evidence(runner.out), settings(runner.scale)
    page.parent.mkdir(parents=True, exist_ok=True)
    verdicts = {part: judge(part, evidence) for part in PARTS}
    text = [*_head(runner, evidence, there, made, verdicts)]
    for number, (part, verdict) in enumerate(verdicts.items(), 1):
        if verdict.outcome != NOT_RUN:
            draw(part, evidence, there, page.parent / "figures")
        text += _part(number, part, verdict, evidence, there, runner.scale)
    text += [*_sweeps(runner, there), *_commands(evidence, there)]
    scratch = page.with_name(f".{page.name}")
    scratch.write_text("\n".join(text) + "\n", encoding="utf-8")
    os.replace(scratch, page)
    return page


def read_made(runner: Runner) -> dict[str, Any]:
    """What the runner noted when it started to run. Raises ConfigError as write."""
    try:
        made = json.loads((runner.out / "claims.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--out {runner.out}: nothing was run there; run without --report-only first") from None
    if made["scale"] != runner.scale.name:
        raise ConfigError(f"--out {runner.out}: holds a {made['scale']} run, not a {runner.scale.name} one")
    return made


def _head(
    runner: Runner, evidence: Evidence, there: dict[str, Setting], made: dict[str, Any], verdicts: dict[str, Verdict]
) -> Iterator[str]:
    scale, runs = runner.scale, [run for name in there for run in evidence.runs(name).values()]
    done = [seconds(path.parent) for path in runner.out.glob("*/*/*/status.json")]
    minutes = sum(taken for taken in done if taken is not None) / 60
    took = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
    yield "# Results\n"
    yield (
        f"Written by `{_all(scale)}` from the runs below its output folder; nothing here is typed by hand. "
        f"This is the **{scale.name} run**: {scale.num_seq * scale.n_edits:,} edits of `facts`, {scale.n_edits} a step"
        + (f", {runs[0].named('model', 'name')} edited at {_sites(runs[0])}." if runs else ".")
    )
    if scale.name == SHORT.name:
        yield "So few edits show that the commands work; they decide no claim about long runs."
    yield (
        f"\n{len(runs)} long runs and their sweeps took {took}, added up; {made.get('at_once', 1)} "
        f"ran at a time on {made['cores']} cores ({made['cpu']})."
    )
    if runs:
        yield f"Versions: {_versions(runs[0])}."
    yield (
        "\nIntervals are 95 %: Wilson's for means, Student's for differences that are paired edit by edit. A seed is "
        "another draw and another order of the edits. The edits of a run are taken as independent of each other.\n"
    )
    yield "| claim | outcome |\n| --- | --- |"
    for number, (part, verdict) in enumerate(verdicts.items(), 1):
        yield f"| [{number}. {TITLES[part]}](#{part}) | {verdict.outcome} |"
    before = {metric: evidence.pooled("stableedit", metric, before=True) for metric in MAIN}
    if all(before.values()):
        yield "\nBefore any edit: " + ", ".join(f"{m} {e.text()}" for m, e in before.items() if e) + "."


def _all(scale: Scale) -> str:
    return "sh run.sh claims" + ("_short" if scale.name == SHORT.name else "")


def _sites(run: Run) -> str:
    return ", ".join(run.config["model"]["edit_modules"])


def _versions(run: Run) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.results.get("versions", {}).items())


def _part(
    number: int, part: str, verdict: Verdict, evidence: Evidence, there: dict[str, Setting], scale: Scale
) -> Iterator[str]:
    ran = verdict.outcome != NOT_RUN
    yield f'\n## <a id="{part}"></a>{number}. {TITLES[part]}\n'
    yield f"**{verdict.outcome.capitalize()}.** {verdict.sentence}\n"
    yield f"Rule: {verdict.rule}\n"
    if ran:
        yield f"![{TITLES[part]}](figures/{part}.svg)\n\n{CAPTIONS[part]}\n"
    names = [name for name in PARTS[part] if evidence.runs(name)]
    missing = [name for name in PARTS[part] if name not in names]
    if missing and ran:
        yield f"Not run: {', '.join(missing)}.\n"
    if names:
        yield from _table(part, names, evidence, there)
        if part in COMPARED and ran:
            yield from _gains(part, names, evidence, there)
    yield f"\nCommand: `{_all(scale)} --only {part}`; its single runs are at the end."


def _table(part: str, names: Sequence[str], evidence: Evidence, there: dict[str, Setting]) -> Iterator[str]:
    head = ["setting", "seeds", "edits scored", *COLUMNS, "ES of the first tenth", ABILITIES, "minutes"]
    yield f"| {' | '.join(head)} |"
    yield "| --- " * len(head) + "|"
    for name in names:
        runs = evidence.runs(name)
        cells = [label(part, there[name]) if name in there else name, ", ".join(map(str, runs))]
        scored = evidence.pooled(name, "ES")
        cells.append(f"{scored.n:,}" if scored else "-")
        cells += [_cell(evidence.pooled(name, metric)) for metric in COLUMNS]
        cells += [_cell(evidence.retained(name)), abilities_cell(evidence, name)]
        taken = [t / 60 for t in (seconds(run.path) for run in runs.values()) if t is not None]
        yield f"| {' | '.join([*cells, f'{sum(taken) / len(taken):.1f}' if taken else '-'])} |"


def _gains(part: str, names: Sequence[str], evidence: Evidence, there: dict[str, Setting]) -> Iterator[str]:
    base = PARTS[part][0]
    yield f"\nDifferences against {label(part, there[base])}:\n\n| setting | {' | '.join(JUDGED)} |"
    yield "| --- " * (len(JUDGED) + 1) + "|"
    for name in names:
        found = gains(evidence, name, base) if name != base else {}
        if found:
            cells = [found[metric].text(sign=True) if metric in found else "-" for metric in JUDGED]
            yield f"| {' | '.join([label(part, there[name]), *cells])} |"


def abilities_cell(evidence: Evidence, name: str) -> str:
    """The downstream mean before and after, and of how many questions each is."""
    found = evidence.downstream(name)
    if found is None:
        return "-"
    asked = [run.config["downstream"] for run in evidence.runs(name).values()]
    questions = max(words["number_of_tests"] * len(words["tasks"]) for words in asked)
    return f"{found[0]:.3f}, {found[1]:.3f} ({questions})"


def _cell(found: Estimate | None) -> str:
    return found.text() if found else "-"


def _command(evidence: Evidence, name: str) -> str:
    run = next(iter(evidence.runs(name).values()))
    here = str(evidence.out.resolve())
    words = [word.replace(here, "OUT") for word in run.overrides if not word.startswith("resume=")]
    return shlex.join(["python", "main.py", *words])


def _commands(evidence: Evidence, there: dict[str, Setting]) -> Iterator[str]:
    yield "\n## The long runs\n\nThe first seed of each; OUT is the folder that the command above writes to.\n\n```sh"
    for name in there:
        if evidence.runs(name):
            yield f"# {name}\n{_command(evidence, name)}"
    yield "```"


def _sweeps(runner: Runner, there: dict[str, Setting]) -> Iterator[str]:
    scale = runner.scale
    yield (
        f"\n## Step sizes\n\nEach setting gets the same budget: {scale.points} points, each {scale.tune_edits:,} "
        f"held-out edits (those that neither warm-up, training nor a long run reads), {scale.tune_scored} of them "
        f"scored. Chosen is the point with the largest\n\n    {FORMULA}\n\n"
        "Where the choice is at an edge of its grid, a better one may lie outside; and what is best after "
        f"{scale.tune_edits:,} edits need not be after {scale.num_seq * scale.n_edits:,}.\n"
    )
    yield "| setting | chosen | at an edge | the sweep |\n| --- | --- | --- | --- |"
    for setting in there.values():
        found = runner.choice(setting)
        if found is None:
            yield f"| {setting.label} | not run | | |"
            continue
        scores = "; ".join(f"{name} {score:+.4f}" for name, score in found.scores.items())
        shared = f" (as {there[setting.tuned_as].label})" if setting.tuned_as else ""
        edge = "grid of two" if scale.points == 2 else "yes" if found.edge else "no"
        yield f"| {setting.label} | {' '.join(found.words)}{shared} | {edge} | {scores} |"
