"""Scoring edit, rephrased and unrelated prompts by a token budget or ten by ten: python -m benchmarks.evaluate."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
import torch

from benchmarks.embedded import Bench
from benchmarks.timing import Found, at_least, command, race
from config.schema import EvalConfig
from data.batches import IGNORED, Tokens, pad
from lifelong.answers import batched


@torch.no_grad()
def plain(bench: Bench, kinds: Sequence[Sequence[Tokens]], *, ordered: bool) -> list[float]:
    """Token accuracy of every row, kind after kind: a step's rows, sorted or as they are, in batches of batch_size."""
    found: list[float] = []
    step, size = bench.cfg.dataset.n_edits, bench.cfg.dataset.batch_size
    for rows in (kind[first : first + step] for kind in kinds for first in range(0, len(kind), step)):
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index].input_ids) if ordered else 0)
        scores: dict[int, float] = {}
        for indices in (order[at : at + size] for at in range(0, len(order), size)):
            batch = pad([rows[index] for index in indices]).to(bench.device)
            logits_BTW = bench.model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT).logits
            right_BT = (logits_BTW.argmax(-1) == batch.labels_BT) & (batch.labels_BT != IGNORED)
            shares_B = right_BT.sum(1) / (batch.labels_BT != IGNORED).sum(1)
            scores |= {index: share.item() for index, share in zip(indices, shares_B, strict=True)}
        found += [scores[index] for index in range(len(rows))]
    return found


def padded(rows: Sequence[Tokens], tokens_per_batch: int) -> int:
    """Positions that the model computes, padding included."""
    groups = batched(rows, tokens_per_batch)
    return sum(len(group) * max(len(rows[index].input_ids) for index in group) for group in groups)


def different(found: Sequence[float], expected: Sequence[float]) -> int:
    """How many rows' scores differ by more than rounding."""
    return sum(abs(a - b) > 1e-6 for a, b in zip(found, expected, strict=True))


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Times, ratios and differing scores of every way; ours by its budget."""
    bench = Bench((25, 26, 27), device, quick=args.quick, edits=10 if args.quick else args.edits)
    kinds, default = bench.rows(), EvalConfig().tokens_per_batch
    rows = [row for kind in kinds for row in kind]
    budgets = sorted({*((64, 256) if args.quick else args.budgets), default})
    ways: dict[str, Callable[[], list[float]]] = {"plain": partial(plain, bench, kinds, ordered=True)}
    ways["unsorted"] = partial(plain, bench, kinds, ordered=False)
    ways |= {f"ours, {budget} tokens": partial(bench.score, rows, budget) for budget in budgets}
    times, scores = race(ways, args.rounds, device)
    times["ratio"] = times["s"]["plain"] / times["s"]
    times["different_scores"] = [different(scores[way], scores["plain"]) for way in times.index]
    times["positions"] = pd.Series({f"ours, {budget} tokens": padded(rows, budget) for budget in budgets})
    faster = at_least(times["ratio"][f"ours, {default} tokens"], 1.3)
    size = {"edits": len(bench.edits), "rows": len(rows), "tokens": sum(len(row.input_ids) for row in rows)}
    shown = ["way", "s", "cpu_s", "ratio", "positions", "different_scores"]
    return Found(times.reset_index(), shown, size, {f"times faster (tokens_per_batch={default})": faster})


edits = {"type": int, "default": 100, "help": "edits, each with three prompts (default 100)"}
budgets = {"nargs": "+", "type": int, "default": [512, 1024, 2048], "help": "tokens per batch to measure"}
main = command("evaluate", __doc__, measure, rounds=2, edits=edits, budgets=budgets)

if __name__ == "__main__":
    main()
