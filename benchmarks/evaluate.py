"""Scoring edit, rephrased and unrelated prompts by a token budget: python -m benchmarks.evaluate.

Plain is what the published program does: per kind of prompt, each step's rows sorted by length and cut into batches
of dataset.batch_size (docs/design.md, 2.1), logits of the whole vocabulary at every position. "Unsorted" leaves the
rows in the data's order. Ours is lifelong.answers.answers over all three kinds together, at several token budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.embedded import config
from benchmarks.timing import at_least, finish, parser, race, ratio, show, start
from config.schema import EvalConfig
from data.batches import IGNORED, Tokens, pad, tokenize
from lifelong.answers import answers, batched, probes
from lifelong.setup import prepare
from model import load_model

KINDS = ("ES", "GS", "LS")
BUDGETS = (512, 1024, 2048)


@torch.no_grad()
def plain(
    model: PreTrainedModel, kinds: Sequence[Sequence[Tokens]], n_edits: int, batch_size: int, *, ordered: bool
) -> list[float]:
    """Token accuracy of every row, kind after kind."""
    found: list[float] = []
    for rows in kinds:
        scores = [0.0] * len(rows)
        for first in range(0, len(rows), n_edits):
            order = list(range(first, min(first + n_edits, len(rows))))
            if ordered:
                order.sort(key=lambda index: -len(rows[index].input_ids))
            for start_ in range(0, len(order), batch_size):
                indices = order[start_ : start_ + batch_size]
                batch = pad([rows[index] for index in indices]).to(model.device)
                logits_BTW = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT).logits
                right_BT = (logits_BTW.argmax(-1) == batch.labels_BT) & (batch.labels_BT != IGNORED)
                shares_B = right_BT.sum(1) / (batch.labels_BT != IGNORED).sum(1)
                for index, share in zip(indices, shares_B, strict=True):
                    scores[index] = share.item()
        found += scores
    return found


def ours(model: PreTrainedModel, rows: Sequence[Tokens], tokens_per_batch: int) -> list[float]:
    """Token accuracy of every row."""
    return [answered.accuracy for answered in answers(model, rows, tokens_per_batch)]


def padded(rows: Sequence[Tokens], tokens_per_batch: int) -> int:
    """Positions that the model computes, padding included."""
    groups = batched(rows, tokens_per_batch)
    return sum(len(group) * max(len(rows[index].input_ids) for index in group) for group in groups)


def measure(edits: int, rounds: int, budgets: Sequence[int], device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Times, ratios and differing scores."""
    cfg = config(quick=quick)
    cfg.num_seq = -(-edits // cfg.dataset.n_edits)
    prepared = prepare(cfg)
    model = load_model(cfg.model, device)
    chosen = [probes(edit, mhop=False) for edit in islice(iter(prepared.data.edits), edits)]
    kinds = [tokenize(prepared.tokenizer, [edit[kind] for edit in chosen]) for kind in KINDS]
    rows = [row for kind in kinds for row in kind]
    way = partial(plain, model, kinds, cfg.dataset.n_edits, cfg.dataset.batch_size)
    scores: dict[str, list[float]] = {}
    runs = {"plain": lambda: scores.update(plain=way(ordered=True))}
    runs["unsorted"] = lambda: scores.update(unsorted=way(ordered=False))
    for budget in budgets:
        runs[str(budget)] = lambda budget=budget: scores.update({str(budget): ours(model, rows, budget)})
    times = race(runs, rounds=rounds, device=device)
    return {
        "model": cfg.model.name,
        "edits": edits,
        "rows": len(rows),
        "tokens": sum(len(row.input_ids) for row in rows),
        "ways": {
            name: timed.summary()
            | {"ratio": ratio(times["plain"], timed), "different_scores": different(scores[name], scores["plain"])}
            | ({"positions": padded(rows, int(name))} if name.isdigit() else {})
            for name, timed in times.items()
        },
    }


def different(found: Sequence[float], expected: Sequence[float]) -> int:
    """How many rows' scores differ by more than rounding."""
    return sum(abs(a - b) > 1e-6 for a, b in zip(found, expected, strict=True))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, then one JSON line."""
    arguments = parser("evaluate", __doc__, rounds=2)
    arguments.add_argument("--edits", type=int, default=100, help="edits, each with three prompts (default 100)")
    arguments.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, help="tokens per batch to measure")
    args = arguments.parse_args(argv)
    device = start(args)
    default = EvalConfig().tokens_per_batch
    budgets = sorted({*((64, 256) if args.quick else args.budgets), default})
    found = measure(10 if args.quick else args.edits, args.rounds, budgets, device, quick=args.quick)
    ways = found["ways"]
    columns = ("s", "cpu_s", "ratio", "positions", "different_scores")
    show(
        ("way", "s", "processor s", "ratio", "positions", "different scores"),
        [
            (f"ours, {name} tokens" if name.isdigit() else name, *(row.get(column) for column in columns))
            for name, row in ways.items()
        ],
    )
    print(f"{found['rows']} rows of {found['tokens']} tokens")
    targets = {f"times faster (tokens_per_batch={default})": at_least(ways[str(default)]["ratio"], 1.3)}
    return finish("evaluate", args, device, found, {} if args.quick else targets)


if __name__ == "__main__":
    main()
