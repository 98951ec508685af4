"""What keeping the frozen layers' hidden states saves (model.frozen_cache_dir): python -m benchmarks.frozen."""

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
from torch import Tensor

from benchmarks.embedded import Bench
from benchmarks.evaluate import different
from benchmarks.timing import Found, at_least, command, race, relative_error
from data.batches import Batch, passes
from editor.capture import Captured, capture_together
from editor.frozen import frozen_inputs, lowest_layer

WORK, WAYS = ("capture", "scoring"), ("without", "warm", "cold")


def capture(bench: Bench, batches: list[Batch]) -> list[Tensor]:
    """Value gradients [N, V] of a step by site, captured as the editor does."""
    found: list[Captured] = []
    for group in passes(batches, bench.cfg.editor.tokens_per_pass):
        found += capture_together(bench.model, bench.editor.sites, group, bench.cfg.editor.token, bench.inputs)
    return [torch.cat([one.rows[site].gradients_NV for one in found]) for site in range(len(bench.editor.sites))]


def held(folder: Path) -> int:
    """Bytes of the states and their index."""
    return sum(path.stat().st_size for path in folder.rglob("*.bin"))


def compare(times: pd.DataFrame, found: dict[str, list[Any]]) -> None:
    """Add how many times faster each way is than without a cache, and how far its gradients or scores are from it."""
    for way in times.index:
        base = f"{way.split(', ')[0]}, without"
        times.loc[way, "ratio"] = times["s"][base] / times["s"][way]
        if way.startswith("capture"):
            times.loc[way, "gradient_difference"] = max(map(relative_error, found[way], found[base]))
        else:
            times.loc[way, "different_scores"] = different(found[way], found[base])


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Each work without a cache, with a warm one (the warm-up saw to that) and with a cold one (a fresh folder)."""
    bench = Bench((24, 25, 26, 27), device, quick=args.quick)
    batches, rows = bench.batches().edit, [row for kind in bench.rows() for row in kind]
    capturing, scoring = partial(capture, bench, batches), partial(bench.score, rows, bench.cfg.eval.tokens_per_batch)
    work: dict[str, Callable[[], list[Any]]] = {"capture": capturing, "scoring": scoring}
    with tempfile.TemporaryDirectory(prefix="bench-frozen-") as scratch:
        warm, numbers = Path(scratch) / "warm", count()

        def prepare(way: str) -> None:
            folders = {"without": None, "warm": str(warm), "cold": f"{scratch}/cold-{next(numbers)}"}
            bench.cfg.model.frozen_cache_dir = folders[way.split(", ")[1]]
            bench.inputs = frozen_inputs(bench.model, bench.cfg.model)

        begun = time.perf_counter()
        prepare("capture, warm")
        installed, empty = time.perf_counter() - begun, held(warm)
        ways = {f"{what}, {way}": work[what] for what in WORK for way in WAYS}
        times, found = race(ways, args.rounds, device, prepare=prepare)
        prepare("capture, without")  # lets go of the folders
        taken = held(warm) - empty
    compare(times, found)
    distinct = {tuple(row.input_ids) for row in rows}
    tokens = sum(map(len, distinct))
    figures = {
        **{"edits": len(bench.edits), "rows": len(rows), "prompts": len(distinct), "tokens": tokens, "bytes": taken},
        **{"frozen_layers": lowest_layer(bench.model, bench.cfg.model.edit_modules)},
        **{"bytes_per_token": taken / tokens, "install_s": installed},
    }
    targets = {f"times faster {what}, warm cache": at_least(times["ratio"][f"{what}, warm"], 2) for what in WORK}
    shown = ["way", "s", "cpu_s", "ratio", "gradient_difference", "different_scores"]
    return Found(times.reset_index(), shown, figures, targets)


main = command("frozen", __doc__, measure, rounds=5)

if __name__ == "__main__":
    main()
