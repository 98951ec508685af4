"""The study: editors over their dials, on facts and on real records, at the paper's load; writes docs/study.md.

python -m claims.study [--short] [--only DATA ...] [--editors NAME ... | --parts | --long] [--seeds N] [--list]

Runs what is not done yet; may be stopped at any moment and started again. REAL_DIR=FOLDER holds the real records
(zsre.json.xz, ...); a data set whose file is not there is left out by name. A seed is another order of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from claims.plan import Job
from claims.runner import Jobs, state
from claims.study_figure import frontiers
from claims.study_page import load, page, verdicts
from config.check import ConfigError, RunError
from data.base import DataError
from data.source import PROJECT
from data.stream import iter_rows
from files import write_whole
from report.style import save

PLAN: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
PAGE = PROJECT / "docs" / "study.md"


@dataclass(frozen=True)
class Scale:
    """How much is run: steps, warm-up steps, scored edits, seeds; of what, and how many points of each dial."""

    name: str
    num_seq: int
    warm_up: int
    scored: int
    seeds: int
    words: str
    data: Sequence[str] = tuple(PLAN["data"])
    editors: Sequence[str] = tuple(PLAN["editors"])
    points: int = 9


SCALES = {name: Scale(name, **told) for name, told in PLAN["scales"].items()}


def points(scale: Scale, editor: str) -> list[str]:
    """The words of an editor's dial, one for each point; an empty one where it has no dial."""
    told = PLAN["editors"][editor]
    found = [float(value) for value in told.get("points", ())]
    if len(found) > scale.points:
        first = min(len(found) // 2, len(found) - scale.points)
        found = found[first : first + scale.points]
    return [f"{told['dial']}={value:g}" for value in found] or [""]


def source(name: str) -> Path | None:
    """The file of a data set, None where it is not there."""
    file = PLAN["data"][name]["file"]
    path = PROJECT / file if "/" in file else Path(os.environ.get("REAL_DIR", "data/raw")) / file
    return path if path.is_file() else None


def jobs(scale: Scale, out: Path, data: Sequence[str], editors: Sequence[str]) -> list[Job]:
    """Every run of editors, the first seed of all before the second of any."""
    found = []
    for seed, name, editor in itertools.product(range(scale.seeds), data, editors):
        words = PLAN["editors"][editor].get("words", "").split()
        for point in points(scale, editor):
            path = f"{editor}/{point.partition('=')[2] or 'run'}"
            found.append(_job(scale, out, f"{name}/{path}/seed{seed}", editor, [*words, *filter(None, [point])]))
    return found


def parts(scale: Scale, out: Path, data: Sequence[str]) -> list[Job]:
    """The runs of the base without one of its parts; as published it is among the editors' runs."""
    found = []
    for name, part in itertools.product(PLAN["parts"]["data"], PLAN["parts"]["settings"]):
        told = PLAN["parts"]["settings"][part]
        for point in told.get("points", [PLAN["parts"]["point"]]) if name in data and "words" in told else ():
            words, value = [*told["words"].split(), f"editor.lr={float(point):g}"], f"{float(point):g}"
            found.append(_job(scale, out, f"{name}/{part}/{value}/seed0", PLAN["base"], words))
    return found


def long(scale: Scale, out: Path, data: Sequence[str]) -> list[Job]:
    """Our editor over many more facts, in every seed's order."""
    found = []
    for seed in range(scale.seeds) if "facts" in data else ():
        words = [*PLAN["long"]["words"].split(), f"eval.edits={scale.scored}", f"model.frozen_cache_dir={out}/frozen"]
        words += [f"dataset.valid_path={out}/data/facts_{seed}.json", f"seed={seed}"]
        found.append(Job(f"long/{PLAN['ours']}/{PLAN['long']['edits']}/seed{seed}", tuple(words)))
    return found


def _job(scale: Scale, out: Path, path: str, editor: str, told: Sequence[str]) -> Job:
    name, seed = path.partition("/")[0], path.rpartition("seed")[2]
    words = [*PLAN["data"][name]["words"].split(), f"editor={editor}", PLAN["sites"], *told, *scale.words.split()]
    words += [f"num_seq={scale.num_seq}", f"num_seq_zsre={scale.warm_up}"]
    words += [f"num_seq_wikibigedit={scale.warm_up}", *PLAN["words"].split()]
    words += [f"eval.edits={scale.scored}", f"model.frozen_cache_dir={out}/frozen"]
    words += [f"dataset.valid_path={out}/data/{name}_{seed}.json", f"seed={seed}"]
    return Job(path, tuple(words))


def write_data(out: Path, data: Sequence[str], seeds: int) -> None:
    """Each seed's records of each data set in an order of its own; a file that is there already stays as it is."""
    for name in data:
        path = source(name)
        assert path is not None
        missing = [seed for seed in range(seeds) if not (out / "data" / f"{name}_{seed}.json").is_file()]
        rows = list(iter_rows(path)) if missing else []
        for seed in missing:
            mixed = random.Random(seed).sample(rows, len(rows))
            write_whole(out / "data" / f"{name}_{seed}.json", json.dumps(mixed, ensure_ascii=False))


def there(names: Sequence[str]) -> list[str]:
    """The data sets whose file is there; says which are not."""
    for name in names:
        if source(name) is None:
            print(f"{name}: left out: REAL_DIR names no folder with {PLAN['data'][name]['file']}", file=sys.stderr)
    return [name for name in names if source(name)]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m claims.study", description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="facts alone, few edits, in some minutes")
    parser.add_argument("--only", nargs="+", choices=PLAN["data"], metavar="DATA", help=f"of {', '.join(PLAN['data'])}")
    parser.add_argument("--editors", nargs="+", choices=PLAN["editors"], metavar="NAME", help="these editors' runs")
    parser.add_argument(
        "--parts", action="store_true", help="the runs of the base editor without one of its parts alone"
    )
    parser.add_argument("--long", action="store_true", help="our editor's run of 10,000 facts alone")
    parser.add_argument("--out", type=Path, help="where the runs lie (default: outputs/study, outputs/study_short)")
    parser.add_argument("--seeds", type=int, help="at most so many seeds")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: one per core, at most 4)")
    parser.add_argument("--list", action="store_true", help="show the runs with their state, run nothing")
    parser.add_argument("--report-only", action="store_true", help="write the page from what is there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, write the page, print the verdicts; the exit status is 1 where a run failed."""
    args = arguments(argv)
    scale = SCALES["short" if args.short else "full"]
    out = (args.out or PROJECT / "outputs" / ("study_short" if args.short else "study")).absolute()
    seeds = max(1, min(args.seeds or scale.seeds, scale.seeds))
    scale = replace(scale, seeds=seeds)
    data, editors = there([name for name in scale.data if name in (args.only or scale.data)]), args.editors
    runner, some = Jobs(out, args.jobs), args.parts or args.long
    planned = [] if some else jobs(scale, out, data, editors or scale.editors)
    every = not (some or args.short or editors)
    planned += parts(scale, out, data) if every or args.parts else []
    planned += long(scale, out, data) if every or args.long else []
    if args.list:
        print("\n".join(f"{state(job, out):9} {job.path}" for job in planned))
        return 0
    if not args.report_only:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            write_data(out, data, seeds)
            runner.all(planned)
    path = out / "study.md" if args.short or args.out else PAGE
    found = load(out)
    if found:
        write_whole(path.parent / "figures" / "study.svg", save(frontiers(PLAN, found))[1])
    write_whole(path, page(PLAN, scale.name, found))
    print(verdicts(PLAN, found))
    print(f"written to {path}")
    return 1 if runner.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Timeout:
        sys.exit("error: another study runs in this folder")
    except (ConfigError, DataError, RunError, OSError) as error:
        sys.exit(f"error: {error}")
