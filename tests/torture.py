"""Kill small runs with SIGKILL at random moments, resume them, and compare with a run that nobody touched.

    python -m tests.torture [--kills 20] [--editors stableedit,rledit] [--seed 0]

Every run is a process of its own that calls main.main() with the words of a command line, and dies
by a real SIGKILL. It is forked from one that has the imports behind it (5 s of every start), and
fork is why this must not be called from a process that has used torch's threads.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch

import lifelong.run  # noqa: F401  so that no run has to import it
import main as program
from editor.registry import editor_class
from lifelong import resume
from tests.test_resume import EDITORS, last_state, numbers, words

EDITS = 48
MORE = [f"num_seq={EDITS // 8}", "downstream_eval_steps=1", "downstream.tasks=[sst]", "downstream.number_of_tests=4"]
MORE += ["eval.every=2", "eval.sample=6"]


@dataclass
class Outcome:
    """What happened to one editor's runs: seconds of a whole one, where the kills landed, what came out wrong."""

    editor: str
    seconds: float = 0.0
    runs: int = 0
    phases: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def _child(argv: list[str], folder: Path) -> None:
    with open(folder / "output.txt", "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(folder)
    sys.argv = ["main.py", *argv]
    program.main()


def execute(argv: list[str], folder: Path, kill_after: float | None = None) -> int:
    """`python main.py ARGV` in a forked process, killed after so many seconds; its exit code (-9: killed)."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(argv, folder))
    process.start()
    process.join(kill_after)
    if process.exitcode is None and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def next_words(argv: list[str], run_dir: Path) -> list[str]:
    """The command line that goes on with a run; the first one again if Hydra had not written it down."""
    started = (run_dir / ".hydra" / "overrides.yaml").is_file()
    return [f"resume={run_dir}"] if started else [*argv, f"hydra.run.dir={run_dir}"]


def metric_lines(run_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    path = run_dir / "metrics.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in whole]


def phase(run_dir: Path, learned: bool) -> str:
    """What a killed run was doing, from what it has left."""
    if not (run_dir / ".hydra" / "overrides.yaml").is_file():
        return "before Hydra"
    if not (run_dir / "metrics.jsonl").is_file():
        return "loading"
    if (run_dir / "results.json").is_file():
        return "after the end"
    if list((run_dir / "checkpoints").glob(".0*")):
        return "checkpoint"
    lines, found = metric_lines(run_dir), resume.newest(run_dir)
    if not lines:
        return "evaluate before"
    last, trains = lines[-1], learned and not (found and found[1]["state"]["training"]["done"])
    if last["event"] == "evaluate":
        return "results" if last["edits"] else "training" if trains else "downstream"
    if last["event"] == "over_time":
        return "checkpoint" if last["step"] else "downstream"
    if last["event"] == "downstream":
        return "final evaluation" if last["edits"] == EDITS else "step"
    if last["event"] == "train":
        return "training" if trains else "downstream"
    return "downstream" if last["phase"] == "edit" else "warm-up"


def compare(whole: Path, other: Path) -> list[str]:
    """Every way in which two finished runs differ, but for clocks and places."""
    found = []
    for name, one, two in zip(("results.json", "metrics.jsonl"), numbers(whole), numbers(other), strict=True):
        if one != two:
            found.append(f"{name} differs")
    if (whole / "edits.jsonl").read_bytes() != (other / "edits.jsonl").read_bytes():
        found.append("edits.jsonl differs")
    found += [f"{name} differs" for name in differing_predictions(whole, other)]
    state, again = last_state(whole), last_state(other)
    if state.keys() != again.keys():
        return [*found, f"tensors {sorted(state.keys() ^ again.keys())} are in one checkpoint only"]
    return found + [f"tensor {name} differs" for name in state if not torch.equal(state[name], again[name])]


def differing_predictions(whole: Path, other: Path) -> list[str]:
    """Names of downstream prediction files that are not byte for byte the same in both runs."""
    one, two = ({path.name: path.read_bytes() for path in run.rglob("*_sst.jsonl")} for run in (whole, other))
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def measure_whole(argv: list[str], folder: Path, outcome: Outcome) -> Path:
    """Two runs that nobody touches, which must be the same; the directory of the second."""
    for name in ("first", "whole"):
        start = time.perf_counter()
        code = execute([*argv, f"hydra.run.dir={folder / name}"], folder)
        outcome.seconds = time.perf_counter() - start
        if code:
            raise SystemExit(f"the run fails undisturbed:\n{(folder / 'output.txt').read_text()[-2000:]}")
    outcome.differences += [f"two whole runs: {line}" for line in compare(folder / "first", folder / "whole")]
    return folder / "whole"


def torment(argv: list[str], run_dir: Path, moments: list[float], generator: random.Random, outcome: Outcome) -> int:
    """One run, killed once or more at the last of `moments` (taken away), and resumed to its end; its exit code."""
    kills = 0
    while True:
        again = bool(moments) and (not kills or generator.random() < 0.3)
        code = execute(next_words(argv, run_dir), run_dir.parent, moments[-1] if again else None)
        if again and code == -signal.SIGKILL:
            moments.pop()
            outcome.phases.append(phase(run_dir, editor_class(outcome.editor).trains))
            kills += 1
        elif code == 0 and not kills:  # it was faster than the moment
            moments[-1] *= 0.9
            shutil.rmtree(run_dir)
        else:
            return code


def torture(editor_name: str, kills: int, generator: random.Random, folder: Path) -> Outcome:
    """Kill an editor's runs so many times, at moments spread evenly over a whole run's duration."""
    outcome, argv = Outcome(editor_name), words(editor_name, *MORE)
    whole = measure_whole(argv, folder, outcome)
    moments = [(index + generator.random()) / kills * outcome.seconds for index in range(kills)]
    generator.shuffle(moments)
    while moments:
        run_dir = folder / f"run{outcome.runs}"
        code = torment(argv, run_dir, moments, generator, outcome)
        outcome.runs += 1
        said = (folder / "output.txt").read_text().strip().splitlines()[-1:]
        found = compare(whole, run_dir) if code == 0 else [f"ended with code {code}: {said}"]
        outcome.differences += [f"{run_dir.name} after {outcome.phases[-1]}: {line}" for line in found]
        if not found:
            shutil.rmtree(run_dir)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """The outcomes for people."""
    lines = [f"{'editor':<12}{'run s':>7}{'runs':>6}{'kills':>7}{'differences':>13}  where the kills landed"]
    for one in outcomes:
        where = ", ".join(f"{name} {count}" for name, count in Counter(one.phases).most_common())
        lines.append(
            f"{one.editor:<12}{one.seconds:>7.2f}{one.runs:>6}{len(one.phases):>7}{len(one.differences):>13}  {where}"
        )
    return "\n".join(lines + [f"{one.editor}: {line}" for one in outcomes for line in one.differences])


def main() -> None:
    """Torture the editors asked for; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="kills per editor (default 20)")
    parser.add_argument("--editors", default=",".join(EDITORS), help="comma-separated (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="torture-") as scratch:
        for name in args.editors.split(","):
            (folder := Path(scratch) / name).mkdir()
            outcomes.append(torture(name, args.kills, random.Random(f"{args.seed} {name}"), folder))
    print(table(outcomes))
    sys.exit(any(one.differences for one in outcomes))


if __name__ == "__main__":
    main()
