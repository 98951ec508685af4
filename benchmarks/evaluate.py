"""Scoring edit, rephrased and unrelated prompts by a token budget or ten by ten: python -m benchmarks.evaluate."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from benchmarks.inputs import opened
from benchmarks.plain import plain_products
from benchmarks.timing import Found, command, race
from data.base import Edit
from data.batches import IGNORED
from lifelong.session import Session


@torch.no_grad()
def plain(session: Session, edits: Sequence[Edit]) -> dict[str, float]:
    """ES, GS and LS from the micro-batches of a step, with the logits of all positions."""
    step, found = session.batches(edits), dict[str, float]()
    for metric, batches in {"ES": step.edit, "GS": step.rephrase, "LS": step.unrelated}.items():
        shares: list[Tensor] = []
        for batch in (one.to(session.model.device) for one in batches):
            with plain_products(session.model):
                logits_BTW = session.model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT).logits
            answer_BT = batch.labels_BT != IGNORED
            right_BT = (logits_BTW.argmax(-1) == batch.labels_BT) & answer_BT
            shares.append(right_BT.sum(1) / answer_BT.sum(1))
        found[metric] = torch.cat(shares).double().mean().item()
    return found


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Times and scores of both ways."""
    with opened((25, 26, 27), device, quick=args.quick) as (session, edits):
        ways: dict[str, Callable[[], Mapping[str, float]]] = {
            "plain": partial(plain, session, edits), "ours": partial(session.score, edits)
        }  # fmt: skip
        times, scores = race(ways, args.rounds)
    times["score_difference"] = pd.DataFrame(scores).T.sub(pd.Series(scores["plain"])).abs().max(axis=1)
    return times, {"edits": len(edits), "scores": scores["plain"], "times_faster": times["times_faster"]["ours"]}


main = command(measure, rounds=2, times_faster=("at least", 1.3))

if __name__ == "__main__":
    main()
