"""A whole job, scored before and after: the plain way, ours without states kept, and with: python -m benchmarks.job."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pandas as pd
import torch

from benchmarks.evaluate import plain
from benchmarks.inputs import run_words
from benchmarks.plain import plain_capture, plain_step
from benchmarks.timing import Found, command, race
from config.compose import compose_config
from data.base import Edit
from data.batches import steps
from editor.base import Editor
from editor.frozen import frozen_inputs
from lifelong.session import Session, open_session
from lifelong.setup import prepare

WAYS = {"plain": 0.0, "without": 0.0, "kept": 2.0}
"""Each with its model.frozen_memory_gib; the latter two are ours."""
SIZE = ["num_seq=2", "num_seq_zsre=1", "editor.lr=3e-4", "editor.batch_size=512"]
QUICK = ["num_seq=2", "num_seq_zsre=2", "editor.lr=1e-4", "dataset.n_edits=8", "dataset.batch_size=5"]


def asked(edits: Iterable[Edit]) -> list[Edit]:
    """The edits with an edit, a rephrased and an unrelated prompt each, which the plain way asks."""
    return [replace(edit, persona=None, mhop=None) for edit in edits]


def plain_job(session: Session, warm_up: Sequence[list[Edit]], edits: Sequence[list[Edit]]) -> list[float]:
    """Score, write every step, score; ES, GS and LS of both times."""
    editor, every = session.editor, [edit for step in edits for edit in step]
    assert isinstance(editor, Editor)
    before = plain(session, every)
    for number, step in enumerate([*warm_up, *edits]):
        plain_step(editor, plain_capture(editor, session.batches(step).edit), warm_up=number < len(warm_up))
    return [*before.values(), *plain(session, every).values()]


def our_job(session: Session, warm_up: Sequence[list[Edit]], edits: Sequence[list[Edit]]) -> list[float]:
    """The same as a run does it."""
    every = [edit for step in edits for edit in step]
    before = session.score(every)
    for step in warm_up:
        session.step(step, warm_up=True)
    for step in edits:
        session.step(step)
    after = session.score(every)
    return [scores[name] for scores in (before, after) for name in ("ES", "GS", "LS")]


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Clock and processor seconds of the three ways, and how far their scores are from the plain way's."""
    size = QUICK if args.quick else SIZE
    cfg = compose_config(["dataset=facts", *run_words((24, 25, 26, 27), quick=args.quick), *size])
    data, tokenizer = prepare(cfg)
    with open_session(cfg, tokenizer, device, device) as session:
        saved = {name: tensor.clone() for name, tensor in session.editor.state_tensors().items()}
        processor = {way: list[float]() for way in WAYS}
        cuts = [list(steps(iter(asked(of or ())), cfg.dataset.n_edits)) for of in (data.training, data.edits)]

        def ready(way: str) -> None:
            session.cfg.model.frozen_memory_gib = WAYS[way]
            session.inputs = session.editor.inputs = frozen_inputs(session.model, session.cfg.model)
            session.editor.last_shifts.clear()
            session.editor.load_state_tensors(saved)

        def timed(way: str) -> Callable[[], list[float]]:
            def work() -> list[float]:
                begun = time.process_time()
                found = (plain_job if way == "plain" else our_job)(session, *cuts)
                processor[way].append(time.process_time() - begun)
                return found

            return work

        times, scores = race({way: timed(way) for way in WAYS}, args.rounds, warm_up=0, prepare=ready)
    times["cpu_s"] = [pd.Series(processor[way]).median() for way in WAYS]
    times["score_difference"] = pd.DataFrame(scores).T.sub(pd.Series(scores["plain"])).abs().max(axis=1)
    faster = times["cpu_s"]["plain"] / times["cpu_s"]
    figures = {"edits": len(data.edits), "times_faster": times["times_faster"]["kept"], "cpu_faster": faster["kept"]}
    return times.rename_axis("way"), figures | {"share_of_without": times["cpu_s"]["kept"] / times["cpu_s"]["without"]}


main = command(measure, rounds=1, times_faster=("at least", 2.0), cpu_faster=("at least", 2.0))

if __name__ == "__main__":
    main()
