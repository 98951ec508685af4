"""What keeping the frozen layers' hidden states saves (model.frozen_cache_dir): python -m benchmarks.frozen.

Capture of one step of 100 edits, and scoring of their edit, rephrased and unrelated prompts, three ways: without the
cache, with a warm one (every prompt is in it: the warm-up round saw to that) and with a cold one (a fresh folder
every time: the lower layers run and what they give is written). Sites are the MLPs' down projections of layers 24-27,
so 24 of the embedded model's 30 layers are frozen.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.embedded import Bench
from benchmarks.evaluate import different
from benchmarks.timing import Found, at_least, command, race, relative_error

WORK, WAYS = ("capture", "scoring"), ("without", "warm", "cold")


def held(folder: Path) -> int:
    """Bytes of the states and their index."""
    return sum(path.stat().st_size for path in folder.rglob("*.bin"))


def compare(times: pd.DataFrame, found: dict[str, list[Any]]) -> None:
    """Add how many times faster each way is than without a cache, and how far its gradients or scores are from it."""
    for way in times.index:
        base = f"{way.split(', ')[0]}, without"
        times.loc[way, "ratio"] = times["s"][base] / times["s"][way]
        if way.startswith("capture"):
            errors = [relative_error(*pair) for pair in zip(found[way], found[base], strict=True)]
            times.loc[way, "gradient_difference"] = max(errors)
        else:
            times.loc[way, "different_scores"] = different(found[way], found[base])


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Times and ratios of every way, how far its gradients and scores are from those without a cache, and its size."""
    bench = Bench((24, 25, 26, 27), device, quick=args.quick)
    batches, rows = bench.batches().edit, [row for kind in bench.rows() for row in kind]
    work: dict[str, Callable[[], list[Any]]] = {"capture": partial(bench.capture, batches)}
    work["scoring"] = partial(bench.score, rows, bench.cfg.eval.tokens_per_batch)
    found: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-frozen-") as scratch:
        folder, numbers = Path(scratch), count()

        def prepare(way: str) -> None:
            cold = folder / f"cold-{next(numbers)}"
            bench.keep_states({"without": None, "warm": folder / "warm", "cold": cold}[way.split(", ")[1]])

        def run(way: str) -> None:
            found[way] = work[way.split(", ")[0]]()

        begun = time.perf_counter()
        prepare("capture, warm")
        installed, empty = time.perf_counter() - begun, held(folder / "warm")
        ways = {way: partial(run, way) for way in (f"{what}, {way}" for what in WORK for way in WAYS)}
        times = race(ways, args.rounds, device, prepare=prepare)
        bench.keep_states(None)
        taken = held(folder / "warm") - empty
    compare(times, found)
    distinct = {tuple(row.input_ids) for row in rows}
    tokens = sum(map(len, distinct))
    size = {"edits": len(bench.edits), "rows": len(rows), "prompts": len(distinct), "tokens": tokens, "bytes": taken}
    figures = {
        **size,
        "frozen_layers": bench.frozen_layers(),
        "bytes_per_token": taken / tokens,
        "install_s": installed,
    }
    targets = {f"times faster {what}, warm cache": at_least(times["ratio"][f"{what}, warm"], 2) for what in WORK}
    shown = ["way", "s", "cpu_s", "ratio", "gradient_difference", "different_scores"]
    return Found(times.reset_index(), shown, figures, targets)


main = command("frozen", __doc__, measure, rounds=5)

if __name__ == "__main__":
    main()
