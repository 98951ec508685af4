"""What the cases spoil copies of, and are compared with: made once, by the program itself, when first asked for."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.tiny import DATA, MODELS, tiny_words

Execute = Callable[[Sequence[str], Path, Callable[[], None] | None], int]
SMALL = ["num_seq=1", "num_seq_zsre=1", "eval.sample=4", "eval.knowns=0"]
LEARNED = ["editor.rank=8", "editor.n_blocks=1", "editor.meta_lr=1e-3"]
SST = ["downstream_eval_steps=1", "downstream.tasks=[sst]", "downstream.number_of_tests=2"]
KILLED = 99


def small(*more: str, **base: str) -> list[str]:
    """main.py and the words of a run of one step, in the directory `run`."""
    return ["main.py", *tiny_words(*SMALL, "hydra.run.dir=run", **base), *more]


def learned(*more: str) -> list[str]:
    """As small, of an editor that trains."""
    return small(*LEARNED, *more, editor="malmen")


def longer(*more: str) -> list[str]:
    """As small, of three steps with a checkpoint after each: what is stopped and resumed."""
    return ["main.py", *tiny_words("checkpoint.every=1", "eval.sample=4", "hydra.run.dir=run", *more)]


def dies_at_the_fourth_checkpoint() -> None:
    """Make this process end without a word once it has saved its fourth checkpoint."""
    from lifelong.resume import Checkpoints

    save = Checkpoints.save

    def last(self: Checkpoints, *args: Any) -> Path:
        folder = save(self, *args)
        if self.number == 4:
            os._exit(KILLED)
        return folder

    Checkpoints.save = last  # type: ignore[method-assign]


class Clean:
    """Folders by name, below one root."""

    def __init__(self, root: Path, execute: Execute) -> None:
        self.root, self.execute = root, execute
        root.mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> Path:
        """The folder of that name: the working directory of the command that made it."""
        folder, done = self.root / name, self.root / f"{name}.done"
        with FileLock(self.root / f"{name}.lock"):
            if not done.exists():
                if name in NEEDS:
                    self.get(NEEDS[name])
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                self._make(name, folder)
                done.touch()
        return folder

    def _make(self, name: str, folder: Path) -> None:
        argv, before = MADE[name]
        code = self.execute(argv, folder, before)
        if code != (KILLED if before else 0):
            raise RuntimeError(f"the clean {name} ended with {code}:\n{(folder / 'output.txt').read_text()[-3000:]}")

    def copy(self, name: str, to: Path) -> Path:
        """A copy of what stands at that path below the root, NAME/REST, the folder NAME made first."""
        self.get(name.partition("/")[0])
        source = self.root / name
        return Path(shutil.copytree(source, to, symlinks=True) if source.is_dir() else shutil.copy2(source, to))


def model_copy(folder: Path, name: str = "tiny-llama") -> Path:
    """A model folder to spoil."""
    return Path(shutil.copytree(MODELS / name, folder / "model"))


MADE: dict[str, tuple[list[str], Callable[[], None] | None]] = {
    "small": (small(), None),
    "longer": (longer(), None),
    "stopped": (longer(), dies_at_the_fourth_checkpoint),
    "reported": (small("report=true"), None),
    "full": (small("model_cache=true", "model_cache_dir=saved"), None),
    "delta": (small("model_cache=true", "model_cache_dir=saved", "export=delta"), None),
    "applied": (["-m", "exports", "apply-delta", str(MODELS / "tiny-llama"), "../delta/saved", "out"], None),
    "learned": (learned("editor.save_checkpoint=true"), None),
    "session": (["main.py", "undo=../longer/run", "steps=1", "model_cache_dir=saved"], None),
    "loaded": (learned("editor.load_checkpoint=../learned/run/checkpoint"), None),
    "before": (small("eval.cache_dir=cache"), None),
    "abilities": (small(*SST, "eval.cache_dir=cache"), None),
    "frozen": (small("model.frozen_cache_dir=cache"), None),
}
"""The command line that makes each, and what is done to its process first."""
NEEDS = {"applied": "delta", "session": "longer", "loaded": "learned"}
"""Those that are made of another."""


def numbers(run: Path) -> tuple[Any, ...]:
    """All that a run says but for clocks, places and its settings."""
    results = json.loads((run / "results.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    free = {"seconds", "cpu_seconds", "peak_memory", "config", "versions", "downstream", "command"}
    free |= {"model_cache_dir", "skipped"}
    kept = {key: value for key, value in results.items() if key not in free}
    kept["counts"] = {key: value for key, value in kept["counts"].items() if key != "skipped_rows"}
    told = [{k: v for k, v in line.items() if k != "seconds" and not k.endswith("/time")} for line in lines]
    return kept, told


def alike(one: Any, two: Any, near: float) -> bool:
    """Whether two JSON trees are the same, numbers as far apart as `near` taken for equal."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key], near) for key in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(alike(a, b, near) for a, b in zip(one, two, strict=True))
    if near and isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=near, abs_tol=near)
    return bool(one == two)


def same_run(
    name: str, run: str = "run", *, rows: bool = True, lines: bool = True, near: float = 0.0
) -> Callable[[Path, Clean], list[str]]:
    """A comparison with the run of that name: edits.jsonl too where its `rows` are the same ones, and metrics.jsonl
    where its `lines` must be; numbers as far apart as `near` are the same.
    """

    def differences(folder: Path, clean: Clean) -> list[str]:
        one, two = clean.get(name) / "run", folder / run
        try:
            pairs = list(zip(("results.json", "metrics.jsonl"), numbers(one), numbers(two), strict=True))[: 1 + lines]
            found = [f"{file} differs from that of a clean run" for file, a, b in pairs if not alike(a, b, near)]
            if rows and not near and (one / "edits.jsonl").read_bytes() != (two / "edits.jsonl").read_bytes():
                found.append("edits.jsonl differs")
        except (OSError, ValueError, KeyError) as error:
            return [f"its records cannot be read: {error!r}"]
        return found

    return differences


def same_file(name: str, path: str) -> Callable[[Path, Clean], list[str]]:
    """A comparison of one file with the clean one of that name, byte for byte."""

    def differences(folder: Path, clean: Clean) -> list[str]:
        one, two = clean.get(name) / path, folder / path
        return [] if two.is_file() and one.read_bytes() == two.read_bytes() else [f"{path} differs from the clean one"]

    return differences


ROWS: list[dict[str, Any]] = json.loads((DATA / "zsre_eval.json").read_text())
