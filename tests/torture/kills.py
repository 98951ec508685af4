"""Single runs and runs that share caches, killed at any moment and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.torture.bench import Bench, Lane, Outcome

CACHES = ["eval.cache_dir={shared}/eval", "dataset.cache_dir={shared}/dataset", "editor.cache_dir={shared}/editor"]
CACHES += ["model.frozen_cache_dir={shared}/frozen"]


def editors(bench: Bench, kills: int) -> list[Outcome]:
    """Runs of every editor, one at a time, each killed once or more; a row per editor."""
    outcomes = []
    for index, editor in enumerate(bench.editors):
        outcome, argv = Outcome(f"editor {editor}"), bench.argv(editor)
        whole, seconds = bench.whole(editor, argv, outcome)
        moments = bench.moments(kills // len(bench.editors) + (index < kills % len(bench.editors)), seconds)
        while moments:
            lane = Lane(argv, bench.fresh("run") / "run", editor)
            ended = bench.torment([lane], moments, outcome)
            bench.settle(lane, ended["run"], whole, outcome)
        outcomes.append(outcome)
    return outcomes


def caches(bench: Bench, kills: int) -> list[Outcome]:
    """Three runs side by side that share every cache, from empty ones on."""
    outcome, side = Outcome("shared caches"), 3
    argvs = {editor: [*bench.argv(editor), *CACHES] for editor in bench.editors}
    wholes = {editor: bench.whole(f"{editor} with caches", argv, outcome) for editor, argv in argvs.items()}
    moments = bench.moments(kills, side * max(seconds for _, seconds in wholes.values()))
    while moments:
        folder = bench.fresh("caches")
        chosen = [bench.generator.choice(bench.editors) for _ in range(side)]
        lanes = [
            Lane([word.format(shared=folder / "shared") for word in argvs[editor]], folder / f"run{number}", editor)
            for number, editor in enumerate(chosen)
        ]
        ended = bench.torment(lanes, moments, outcome)
        for lane in lanes:
            bench.settle(lane, ended[lane.run_dir.name], wholes[lane.editor][0], outcome)
        outcome.differences += [f"{path} is left over" for path in leftovers(folder / "shared")]
        shutil.rmtree(folder / "shared")
    return [outcome]


def leftovers(shared: Path) -> list[Path]:
    """What killed runs have left in caches that other runs have used since."""
    return [path for path in shared.rglob("*") if path.name.startswith(("run-", ".before-", ".abilities-"))
            and not path.name.endswith(".lock")]  # fmt: skip
