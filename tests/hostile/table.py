"""Every case: the tables of all groups, one after the other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.hostile import caches, exported, keys, models, others, records, runs
from tests.hostile.case import GOOD, OUTCOMES, Case, Outcome


def all_cases(whole: bool = False) -> list[Case]:
    """Every row of every table."""
    modules = (keys, records, models, runs, others, exported, caches)
    return [case for module in modules for case in module.cases(*((whole,) if module is keys else ()))]


def selection(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    """So many of the cases, of every group its share and at least one."""
    generator, picked = random.Random(seed), []
    for group, size in Counter(case.group for case in cases).items():
        some = [case for case in cases if case.group == group]
        picked += generator.sample(some, min(size, max(1, round(count * size / len(cases)))))
    return picked


def table(outcomes: Iterable[Outcome]) -> str:
    """How many of each group came to what."""
    groups: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.case.group, Counter())[outcome.kind] += 1
    groups["all"] = sum(groups.values(), Counter())
    heads = ["cases", "refused with words", "accepted", "tracebacks", "hangs", "wrong", "no words"]
    lines = [f"{'group':<14}" + "".join(f"{head:>{len(head) + 3}}" for head in heads)]
    for group, counts in groups.items():
        cells = [counts.total(), *(counts[kind] for kind in OUTCOMES)]
        lines.append(f"{group:<14}" + "".join(f"{c:>{len(h) + 3}}" for c, h in zip(cells, heads, strict=True)))
    return "\n".join(lines)


def bad_ones(outcomes: Iterable[Outcome], lines: int = 6) -> str:
    """Each outcome that is not right, with the last lines of what it said."""
    told = []
    for one in outcomes:
        if one.kind not in GOOD:
            said = "\n".join(f"    {line[:300]}" for line in one.said.splitlines()[-lines:])
            told.append(f"{one.kind}  {one.case.group}  {one.case.name}: {one.note[:300]}\n{said}")
    return "\n".join(told)


def reasons(outcomes: Iterable[Outcome]) -> str:
    """Why what was accepted may be, with how many cases each reason has."""
    whys = Counter((one.case.group, one.case.wants.why) for one in outcomes if one.kind == "accepted")
    return "\n".join(f"{group:<14} {count:>4} accepted: {why}" for (group, why), count in whys.items())
