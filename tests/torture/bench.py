"""What every kind of torture needs: undisturbed runs to compare with, an outcome, and runs killed side by side."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from editor.registry import editor_class
from tests.test_resume import words
from tests.torture.compare import EDITS, compare, phase
from tests.torture.process import Child, next_words

MORE = [f"num_seq={EDITS // 8}", "downstream_eval_steps=1", "downstream.tasks=[sst]", "downstream.number_of_tests=4"]
MORE += ["eval.every=2", "eval.sample=6"]
SOONER = 0.8  # of a moment at which a run had already ended


@dataclass
class Outcome:
    """What happened to runs of one kind: where the kills landed, what was refused, what came out wrong."""

    name: str
    seconds: float = 0.0
    runs: int = 0
    resumed: int = 0
    phases: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many processes (of a sweep: sweeps) were killed."""
        return len(self.phases)

    def row(self) -> str:
        """The outcome as a row of the table."""
        where = ", ".join(f"{name} {count}" for name, count in Counter(self.phases).most_common())
        counts = f"{self.runs:>6}{self.kills:>7}{self.resumed:>9}{len(self.refusals):>9}{len(self.differences):>13}"
        return f"{self.name:<22}{self.seconds:>7.1f}{counts}  {where}"


COLUMNS = f"{'runs':>6}{'kills':>7}{'resumed':>9}{'refused':>9}{'differences':>13}"
HEAD = f"{'kind':<22}{'s':>7}{COLUMNS}  where the kills landed"


@dataclass
class Lane:
    """A run on its way to its end: its command line, its directory, its editor, the kills so far."""

    argv: list[str]
    run_dir: Path
    editor: str
    kills: int = 0

    @property
    def trains(self) -> bool:
        """Whether its editor trains first."""
        return editor_class(self.editor).trains


class Bench:
    """A scratch folder, the editors to torture, chance, and whole runs that are made once."""

    def __init__(self, folder: Path, editors: list[str], seed: str, wholes: dict[str, tuple[Path, float]]) -> None:
        self.folder, self.editors, self.generator, self._wholes = folder, editors, random.Random(seed), wholes
        self._count = 0

    def argv(self, editor: str, *more: str) -> list[str]:
        """The words of a run of about a second."""
        return words(editor, *MORE, *more)

    def fresh(self, name: str) -> Path:
        """A new folder."""
        self._count += 1
        (folder := self.folder / f"{name}{self._count}").mkdir()
        return folder

    def whole(self, name: str, argv: list[str], outcome: Outcome) -> tuple[Path, float]:
        """A run that nobody touched, twice the same, and its seconds; made at the first call."""
        if name not in self._wholes:
            folder = self.fresh("whole")
            for run_dir in ("first", "second"):
                child = Child([word.format(shared=folder / f"shared-{run_dir}") for word in argv]
                              + [f"hydra.run.dir={folder / run_dir}"], folder)  # fmt: skip
                if child.end():
                    raise SystemExit(f"the run fails undisturbed:\n{child.output.read_text()[-2000:]}")
                self._wholes[name] = folder / "second", time.monotonic() - child.started
            found = compare(folder / "first", folder / "second")
            outcome.differences += [f"two whole runs of {name}: {line}" for line in found]
        return self._wholes[name]

    def moments(self, kills: int, seconds: float) -> list[float]:
        """Moments to kill at, spread evenly over so many seconds, in any order."""
        moments = [(index + self.generator.random()) / kills * seconds for index in range(kills)]
        self.generator.shuffle(moments)
        return moments

    def torment(
        self, lanes: list[Lane], moments: list[float], outcome: Outcome, *,
        prepare: Callable[[], None] | None = None, after_kill: Callable[[], None] | None = None,
    ) -> dict[str, Child]:  # fmt: skip
        """Drive runs side by side to their ends, each killed once or more at the last of `moments` (taken away).

        A run that is faster than its moment gives it back, a little earlier. Returns each directory's last process.
        """
        waiting, ended = list(lanes), {}
        while waiting:
            children = []
            for lane in waiting:
                again = bool(moments) and (not lane.kills or self.generator.random() < 0.3)
                moment = moments.pop() if again else None
                outcome.resumed += bool(lane.kills)
                child = Child(next_words(lane.argv, lane.run_dir), lane.run_dir.parent, prepare)
                children.append((float("inf") if moment is None else moment, child, lane))
            for moment, child, lane in sorted(children, key=lambda one: one[0]):
                code = child.end(None if moment == float("inf") else moment)
                if moment != float("inf") and code == -signal.SIGKILL:
                    outcome.phases.append(phase(lane.run_dir, lane.trains))
                    lane.kills += 1
                    if after_kill is not None:
                        after_kill()
                    continue
                if moment != float("inf"):
                    moments.append(moment * SOONER)
                waiting.remove(lane)
                ended[lane.run_dir.name] = child
        return ended

    def settle(self, lane: Lane, child: Child, whole: Path, outcome: Outcome, *, may_refuse: bool = False) -> None:
        """Compare a run that came to its end with the whole one; remove it if it is the same."""
        outcome.runs += 1
        code, found = child.end(), []
        if code == 0:
            found = compare(whole, lane.run_dir)
        elif may_refuse and child.refused():
            outcome.refusals.append(child.said())
        else:
            found = [f"ended with code {code}: {child.said()}"]
        after = f"after {outcome.phases[-1]}" if outcome.phases else "untouched"
        outcome.differences += [f"{lane.editor} {lane.run_dir} {after}: {line}" for line in found]
        if not found and "TORTURE_KEEP" not in os.environ:
            shutil.rmtree(lane.run_dir)
