"""A whole edit step of the embedded model beside its floor and the plain way: python -m benchmarks.step."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from torch.utils.benchmark.utils.timer import timer

from benchmarks.inputs import opened
from benchmarks.plain import plain_capture, plain_step
from benchmarks.timing import Found, command, race, relative_error
from editor.base import Editor
from editor.capture import capture_together
from editor.ridge import Shift


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Times of the three ways, ours split by phase, and how far the shifts are from the plain way's."""
    with opened((25, 26, 27), device, quick=args.quick) as (session, edits):
        editor, steps = session.editor, list[dict[str, float]]()
        assert isinstance(editor, Editor)
        saved = {name: tensor.clone() for name, tensor in editor.state_tensors().items()}

        def ours() -> list[Shift]:
            steps.append(session.edit(edits).seconds)
            return list(editor.last_shifts.values())

        def floor() -> None:  # forward and backward of single micro-batches, down to the lowest site's output
            for batch in session.batches(edits).edit:
                capture_together(session.model, editor.sites[:1], [batch], editor.cfg.token)

        ways: dict[str, Callable[[], Any]] = {
            "plain": lambda: plain_step(editor, plain_capture(editor, session.batches(edits).edit)),
            **{"ours": ours, "floor": floor},
        }
        with patch("time.perf_counter", timer):  # PyTorch's timer waits for a GPU
            times, found = race(ways, args.rounds, prepare=lambda _: editor.load_state_tensors(saved))
    phases = pd.DataFrame(steps[-args.rounds :]).median()
    shifts = [shift.matrix() for shift in found["ours"]]
    figures = {
        "edits": len(edits),
        "shift_difference": max(map(relative_error, shifts, found["plain"])),
        "rest_share": 1 - phases["capture"] / times["s"]["ours"],
        "over_floor": phases["capture"] / times["s"]["floor"],
        "times_faster": times["times_faster"]["ours"],
    }
    return pd.concat([times, pd.DataFrame({"s": phases}).rename("ours: {}".format)]).rename_axis("way"), figures


main = command(measure, 5, rest_share=("at most", 0.1), over_floor=("at most", 1.05), times_faster=("at least", 1.4))

if __name__ == "__main__":
    main()
