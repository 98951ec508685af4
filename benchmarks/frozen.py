"""What keeping the frozen layers' hidden states saves (model.frozen_cache_dir): python -m benchmarks.frozen."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import count

import pandas as pd
import torch
from torch import Tensor

from benchmarks.inputs import opened
from benchmarks.timing import Found, command, race, relative_error
from config.editors import EditorConfig
from data.batches import Batch, passes
from editor.capture import capture_together
from editor.frozen import frozen_inputs
from lifelong.session import Session

WAYS = ("without", "warm", "cold")


def capture(session: Session, batches: Sequence[Batch]) -> list[Tensor]:
    """Value gradients [N, V] of a step by micro-batch and site, captured as the editor does."""
    sites, cfg = session.editor.sites, session.editor.cfg
    assert isinstance(cfg, EditorConfig)
    groups = passes(batches, session.editor.tokens_per_pass)
    found = [capture_together(session.model, sites, group, cfg.token, session.inputs) for group in groups]
    return [rows.gradients_NV for group in found for captured in group for rows in captured.rows]


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Each work without a cache, with a warm one (the warm-up saw to that) and with a cold one (a fresh folder)."""
    opening = opened((24, 25, 26, 27), device, quick=args.quick)
    with opening as (session, edits), tempfile.TemporaryDirectory(prefix="bench-frozen-") as scratch:
        numbers = count()

        def prepare(way: str) -> None:
            folders = {"without": None, "warm": f"{scratch}/warm", "cold": f"{scratch}/cold-{next(numbers)}"}
            session.cfg.model.frozen_cache_dir = folders[way]
            session.inputs = frozen_inputs(session.model, session.cfg.model)

        capturing = partial(capture, session, session.batches(edits).edit)
        captured, gradients = race(dict.fromkeys(WAYS, capturing), args.rounds, prepare=prepare)
        scored, scores = race(dict.fromkeys(WAYS, partial(session.score, edits)), args.rounds, prepare=prepare)
        prepare("without")  # lets go of the folders
    captured["gradient_difference"] = [max(map(relative_error, gradients[way], gradients["without"])) for way in WAYS]
    scored["score_difference"] = pd.DataFrame(scores).T.sub(pd.Series(scores["without"])).abs().max(axis=1)
    table = pd.concat({"capture": captured, "scoring": scored}, names=["work"])
    warm = {f"{work}_times_faster": table["times_faster"][work, "warm"] for work in ("capture", "scoring")}
    return table, {"edits": len(edits), **warm}


main = command(measure, rounds=5, capture_times_faster=("at least", 2.0), scoring_times_faster=("at least", 2.0))

if __name__ == "__main__":
    main()
