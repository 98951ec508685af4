"""Sweeps that are killed: what goes on running, and what the program makes of the same command afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from lifelong.status import read_status
from tests.tiny import PROJECT
from tests.torture.bench import Bench, Outcome
from tests.torture.compare import compare

MARK = "TORTURE_MARK"  # in the environment of every process of a sweep
PATIENCE = 30.0  # seconds that a job may take to save and leave
ALPHAS = ("1", "10")
WAYS = ("its process", "its group", "everything")


class Sweep:
    """`python main.py -m ...` over two step sizes in a folder, with all processes below it."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self.mark, self.output, self.started = uuid.uuid4().hex, folder / "output.txt", time.monotonic()
        words = [sys.executable, str(PROJECT / "main.py"), "-m", *argv, f"editor.alpha={','.join(ALPHAS)}"]
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(
                [*words, f"hydra.sweep.dir={folder / 'sweep'}"], cwd=folder, env=os.environ | {MARK: self.mark},
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def kill(self, way: str) -> None:
        """SIGKILL to the sweep's process alone, to its group, or to every process of it."""
        if way == "its process":
            self.process.kill()
        elif way == "its group":
            os.killpg(self.process.pid, signal.SIGKILL)
        while way == "everything" and (living := self.living()):
            for pid in living:
                kill_if_there(pid)
            self.process.poll()
        self.process.wait()

    def living(self) -> list[int]:
        """Its processes that live."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def left_over(self) -> list[str]:
        """Command lines of those that still live when they should have saved and left; they are killed."""
        until = time.monotonic() + PATIENCE
        while self.living() and time.monotonic() < until:
            time.sleep(0.1)
        found = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in self.living()]
        self.kill("everything")
        return found


def kill_if_there(pid: int) -> None:
    """SIGKILL to a process that may be gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def sweeps(bench: Bench, kills: int) -> list[Outcome]:
    """Sweeps of two jobs, in parallel and one after another, killed in three ways and started again."""
    outcome = Outcome("sweeps")
    argv = [word for word in bench.argv("stableedit") if not word.startswith("editor.alpha=")]
    wholes = [bench.whole(f"alpha {alpha}", [*argv, f"editor.alpha={alpha}"], outcome)[0] for alpha in ALPHAS]
    launchers, seconds = (["hydra/launcher=joblib"], []), [0.0, 0.0]
    for index in range(kills):
        launcher, way = launchers[index % 2], WAYS[index % 3]
        if not seconds[index % 2]:
            sweep = run(bench, [*argv, *launcher], wholes, outcome)
            seconds[index % 2] = time.monotonic() - sweep.started
        folder = bench.fresh("sweep")
        sweep = Sweep([*argv, *launcher], folder)
        # the first seconds are imports
        moment = seconds[index % 2] * (0.2 + 0.8 * bench.generator.random())
        try:
            sweep.process.wait(moment)
        except subprocess.TimeoutExpired:
            sweep.kill(way)
        done = sum(read_status(folder / "sweep" / str(job)).get("state") == "done" for job in range(len(ALPHAS)))
        outcome.phases.append(f"{way}: {done} done")
        outcome.differences += [f"{folder} {way}: still runs: {words}" for words in sweep.left_over()]
        outcome.resumed += 1
        settle(Sweep([*argv, *launcher], folder), folder, wholes, outcome)
    return [outcome]


def run(bench: Bench, argv: list[str], wholes: list[Path], outcome: Outcome) -> Sweep:
    """A sweep that nobody touches."""
    folder = bench.fresh("sweep")
    sweep = Sweep(argv, folder)
    settle(sweep, folder, wholes, outcome)
    return sweep


def settle(sweep: Sweep, folder: Path, wholes: list[Path], outcome: Outcome) -> None:
    """Wait for a sweep's end and compare its jobs with single runs."""
    code = sweep.process.wait()
    outcome.runs += 1
    if code:
        said = sweep.output.read_text(errors="replace").strip().splitlines()[-1:]
        outcome.differences.append(f"{folder}: the sweep ended with code {code}: {said}")
        return
    for job, whole in enumerate(wholes):
        found = compare(whole, folder / "sweep" / str(job), forked=False)
        outcome.differences += [f"{folder} job {job}: {line}" for line in found]
