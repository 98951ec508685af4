"""Peak extra memory of one step at Mistral-7B's shapes, without a transformer: python -m benchmarks.memory."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn

from benchmarks.inputs import GRADIENT_NORM, KEY_NORM, RUN, random_rows, random_statistics
from benchmarks.plain import plain_step
from benchmarks.timing import Found, command, process_memory
from config.compose import compose_config
from data.batches import IGNORED, Batch, StepBatches
from editor.capture import Captured, Rows
from editor.sites import EditSite
from editor.stableedit import StableEdit

MICRO_BATCHES = 10


def rows_of(sites: Sequence[EditSite], count: int, device: torch.device) -> list[Rows]:
    """A micro-batch's rows of every site, in place of what a capture would give."""
    sizes = [((site.d_k, KEY_NORM), (site.d_v, GRADIENT_NORM)) for site in sites]
    return [Rows(*(random_rows(count, *size, device) for size in pair)) for pair in sizes]


def plain(editor: StableEdit, count: int) -> list[float]:
    """The step as published, its backward pass replaced by weight gradients of ready rows; the shifts' norms."""

    def captured() -> Iterator[list[Rows]]:
        for _ in range(MICRO_BATCHES):
            found = rows_of(editor.sites, count, editor.solve_device)
            for site, rows in zip(editor.sites, found, strict=True):
                weight: Any = site.module.weight
                gradient = (rows.gradients_NV.T @ rows.keys_NK).to(weight.dtype)
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
            yield found

    return [shift.norm().item() for shift in plain_step(editor, captured())]


def ours(editor: StableEdit, count: int) -> list[float]:
    """editor.step, its capture replaced by one that hands out ready rows; the shifts' norms."""
    empty = Batch(*(torch.full((1, 1), value) for value in (0, 1, IGNORED)))

    def ready(_: object, sites: Sequence[EditSite], group: Sequence[Batch], *__: object) -> list[Captured]:
        return [Captured(torch.zeros(()), 1, rows_of(sites, count, editor.solve_device)) for _ in group]

    with patch("editor.ranks.capture_together", ready):
        report = editor.step(StepBatches([empty] * MICRO_BATCHES, [], []), warm_up=False)
    return [record.shift_norm for record in report.sites.values()]


def extra_memory(work: Callable[[], list[float]], device: torch.device) -> tuple[float, list[float]]:
    """Peak memory of the work in MiB beyond what is held before it (resident, or on a GPU), and what it gave."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held, given = torch.cuda.memory_allocated(device), work()
        return (torch.cuda.max_memory_allocated(device) - held) / 2**20, given
    with suppress(OSError):  # not Linux, or not allowed: the process's earlier peak then counts too
        Path("/proc/self/clear_refs").write_text("5")
    resident, given = process_memory("self", "VmRSS"), work()
    return process_memory("self", "VmHWM") - resident, given


def measure(args: argparse.Namespace, device: torch.device) -> Found:
    """Both ways on the same rows, ours first."""
    big, tiny = (4, 14336, 4096, 50, torch.bfloat16), (2, 512, 128, 4, torch.float32)
    count, d_k, d_v, rows, dtype = tiny if args.quick else big
    layers = [nn.Linear(d_k, d_v, bias=False, dtype=dtype, device=device) for _ in range(count)]
    sites = [EditSite(str(index), layer.requires_grad_(False)) for index, layer in enumerate(layers)]
    cfg = compose_config(["dataset=facts", *RUN, "editor.lr=1e-6", "editor.batch_size=512"]).editor
    model = cast(Any, SimpleNamespace(device=device))  # its capture is replaced
    editor, found = StableEdit(cfg, model, sites, solve_device=device), {}
    for way in (ours, plain):
        torch.manual_seed(0)
        editor.statistics = {shape: random_statistics(*shape, device) for shape in editor.statistics}
        found[way.__name__] = extra_memory(partial(way, editor, rows), device)
    table = pd.DataFrame(found, index=["extra_mib", "shift_norms"]).T.rename_axis("way")
    share = table["extra_mib"]["ours"] / max(table["extra_mib"]["plain"], 1e-9)
    return table, {"sites": count, "d_k": d_k, "d_v": d_v, "rows": rows * MICRO_BATCHES, "share_of_plain": share}


main = command(measure, share_of_plain=("at most", 1 / 3))

if __name__ == "__main__":
    main()
