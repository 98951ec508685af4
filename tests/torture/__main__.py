"""Kill small runs with SIGKILL at random moments, resume them, and compare with runs that nobody touched.

    python -m tests.torture [--kills 200] [--kinds editors,caches,...] [--editors stableedit,rledit] [--seed 0]

docs/promises.md says what each kind shows. TORTURE_KEEP=1 keeps the scratch folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from tests.test_resume import EDITORS
from tests.torture import directories, kills, power, sweeps, threads
from tests.torture.bench import HEAD, Bench, Outcome

# a kind's function and its share of the kills
KINDS = {
    "editors": (kills.editors, 0.4),
    "caches": (kills.caches, 0.15),
    "directories": (directories.directories, 0.15),
    "power": (power.power, 0.2),
    "sweeps": (sweeps.sweeps, 0.06),
    "threads": (threads.threads, 0.04),
}


def shares(total: int, kinds: list[str]) -> dict[str, int]:
    """So many kills for each kind, at least one."""
    whole = sum(KINDS[kind][1] for kind in kinds)
    counts = {kind: max(1, int(total * KINDS[kind][1] / whole)) for kind in kinds}
    counts[kinds[0]] += max(0, total - sum(counts.values()))
    return counts


def table(outcomes: list[Outcome]) -> str:
    """The outcomes for people: a row each, then every refusal, note and difference."""
    lines = [HEAD, *(one.row() for one in outcomes)]
    lines.append(
        f"{sum(one.kills for one in outcomes)} kills, {sum(len(one.differences) for one in outcomes)} differences"
    )
    for one in outcomes:
        lines += [f"{one.name}: refused {count} times: {line}" for line, count in Counter(one.refusals).items()]
        lines += [f"{one.name}: {line}" for line in [*one.notes, *one.differences]]
    return "\n".join(lines)


def main() -> None:
    """Torture what is asked for; exit code 1 if anything differs."""
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="kills, over all kinds (default 200)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"comma-separated (default: {','.join(KINDS)})")
    parser.add_argument("--editors", default=",".join(EDITORS), help="comma-separated (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    outcomes: list[Outcome] = []
    wholes: dict[str, tuple[Path, float]] = {}
    scratch = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        for kind, count in shares(args.kills, args.kinds.split(",")).items():
            (folder := scratch / kind).mkdir()
            start = time.monotonic()
            found = KINDS[kind][0](Bench(folder, args.editors.split(","), f"{args.seed} {kind}", wholes), count)
            for one in found:
                one.seconds = (time.monotonic() - start) / len(found)
            print(f"{kind}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            outcomes += found
    finally:
        if "TORTURE_KEEP" not in os.environ:
            shutil.rmtree(scratch, ignore_errors=True)
    print(table(outcomes))
    sys.exit(any(one.differences for one in outcomes))


if __name__ == "__main__":
    main()
