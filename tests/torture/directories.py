"""Run directories that are used again, and by two at once."""

from __future__ import annotations

from lifelong.status import RECORDS
from tests.torture.bench import SOONER, Bench, Lane, Outcome
from tests.torture.compare import phase, tree
from tests.torture.process import Child, next_words

REFUSALS = ("another run is at work there", "holds another run")


def directories(bench: Bench, kills: int) -> list[Outcome]:
    """A run is killed; others are started in its place; two go on with it at once; others again when it is done."""
    outcome = Outcome("reused, two at once")
    argvs = {editor: bench.argv(editor) for editor in bench.editors}
    wholes = {editor: bench.whole(editor, argv, outcome) for editor, argv in argvs.items()}
    moments = bench.moments(kills, max(seconds for _, seconds in wholes.values()))
    while moments:
        editor = bench.generator.choice(bench.editors)
        lane = Lane(argvs[editor], bench.fresh("reused") / "run", editor)
        whole, seconds = wholes[editor]
        moment = moments.pop()
        first = Child(next_words(lane.argv, lane.run_dir), lane.run_dir.parent)
        if first.end(moment) == 0:  # it was faster than the moment
            moments.append(moment * SOONER)
            bench.settle(lane, first, whole, outcome)
            continue
        outcome.phases.append(phase(lane.run_dir, lane.trains))
        if any((lane.run_dir / name).exists() for name in RECORDS):
            intrude(lane, outcome, "editor.lr=0.5")
        last = two_at_once(bench, lane, seconds, outcome)
        intrude(lane, outcome)
        bench.settle(lane, last, whole, outcome)
    return [outcome]


def intrude(lane: Lane, outcome: Outcome, *more: str) -> None:
    """Start another run in the directory, with the same words or `more`: it must be refused and change nothing."""
    before = tree(lane.run_dir)
    child = Child([*lane.argv, *more, f"hydra.run.dir={lane.run_dir}"], lane.run_dir.parent)
    code, found = child.end(), []
    if code != 1 or not child.refused() or REFUSALS[1] not in child.said():
        found.append(f"a run in its place ended with code {code}: {child.said()}")
    after = tree(lane.run_dir)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    found += [f"a run that was refused its place has changed {changed}"] if changed else []
    outcome.differences += [f"{lane.editor} {lane.run_dir}: {line}" for line in found]
    outcome.refusals += [f"... {REFUSALS[1]} ..."] if not found else []


def two_at_once(bench: Bench, lane: Lane, seconds: float, outcome: Outcome) -> Child:
    """Go on with the run twice at once; gives the process that came to its end, which all others must have let be."""
    argv, folder = next_words(lane.argv, lane.run_dir), lane.run_dir.parent
    outcome.resumed += argv[0].startswith("resume=")
    first = Child(argv, folder)
    first.process.join(bench.generator.choice([0.0, bench.generator.random() * seconds]))
    alone = first.process.exitcode is not None
    second = Child(argv, folder)
    ended = {child: child.end() for child in (first, second)}
    for child, code in ended.items():
        if code and not (child.refused() and any(words in child.said() for words in REFUSALS)):
            outcome.differences.append(f"{lane.editor} {lane.run_dir}: one of two ended with {code}: {child.said()}")
        elif code:
            words = next(words for words in REFUSALS if words in child.said())
            outcome.refusals.append(f"... {words} ...")
    if not any(ended.values()) and not alone:
        outcome.notes.append("the second came when the first had just let go")
    return second if ended[first] else first
