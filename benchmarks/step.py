"""A whole edit step of the embedded model beside its floor and the plain way: python -m benchmarks.step."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor
from torch.utils.benchmark.utils.timer import timer

from benchmarks.inputs import opened
from benchmarks.plain import plain_capture, plain_step
from benchmarks.timing import Found, command, race, relative_error
from data.base import Edit
from editor.capture import capture_together
from editor.ridge import Shift
from lifelong.session import Session


def plain(session: Session, edits: Sequence[Edit]) -> list[Tensor]:
    """The step as published; the shift of every site."""
    statistics = {shape: found.copy() for shape, found in session.editor.statistics.items()}
    captured = plain_capture(session.model, session.editor.sites, session.batches(edits).edit)
    return plain_step(session.editor.sites, captured, statistics, session.editor.cfg)


def floor(session: Session, edits: Sequence[Edit]) -> None:
    """Forward and backward alone, micro-batch by micro-batch, down to the lowest site's output."""
    for batch in session.batches(edits).edit:
        capture_together(session.model, session.editor.sites[:1], [batch], session.editor.cfg.token)


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Times of the three ways, ours split by phase, and how far the shifts are from the plain way's."""
    with opened((25, 26, 27), device, quick=args.quick) as (session, edits):
        editor, steps = session.editor, list[dict[str, float]]()
        saved = {name: tensor.clone() for name, tensor in editor.state_tensors().items()}

        def ours() -> list[Shift]:
            steps.append(session.edit(edits).seconds)
            return list(editor.last_shifts.values())

        ways: dict[str, Callable[[], Any]] = {"plain": partial(plain, session, edits), "ours": ours}
        ways["floor"] = partial(floor, session, edits)
        with patch("time.perf_counter", timer):  # PyTorch's timer waits for a GPU
            times, found = race(ways, args.rounds, prepare=lambda _: editor.load_state_tensors(saved))
    phases = pd.DataFrame(steps[-args.rounds :]).median()
    shifts = [shift.matrix() for shift in found["ours"]]
    figures = {
        "edits": len(edits),
        "shift_difference": max(map(relative_error, shifts, found["plain"])),
        "share_of_the_rest": 1 - phases["capture"] / times["s"]["ours"],
        "passes_over_floor": phases["capture"] / times["s"]["floor"],
        "times_faster": times["times_faster"]["ours"],
    }
    return pd.concat([times, pd.DataFrame({"s": phases}).rename("ours: {}".format)]).rename_axis("way"), figures


main = command(
    measure,
    rounds=5,
    share_of_the_rest=("at most", 0.1),
    passes_over_floor=("at most", 1.05),
    times_faster=("at least", 1.4),
)

if __name__ == "__main__":
    main()
