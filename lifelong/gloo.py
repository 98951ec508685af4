"""Objects sent from process to process, through gloo and the host's memory."""

from __future__ import annotations

import io
import os
import pickle
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(minutes=10)
"""What rank 0 gives the others once its own share is done."""
FOREVER = timedelta(days=7)
"""What the others give rank 0: where it dies its connections close at once."""


def meet() -> None:
    """Join the other ranks; on a GPU of this process's own, where there are as many."""
    dist.init_process_group("gloo", timeout=FOREVER)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


class _Pickler(pickle.Pickler):
    def reducer_override(self, content: Any) -> Any:
        """Tensors go through the host, without the rest of the memory that they are a view of."""
        if not isinstance(content, Tensor):
            return NotImplemented
        alone = content.detach().cpu().clone(memory_format=torch.contiguous_format)
        return alone.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


def pickled(content: Any) -> memoryview:
    """Anything that can be pickled, as bytes; its tensors come back on the CPU."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(content)
    return buffer.getbuffer()


def put(content: Any, rank: int, patience: timedelta) -> None:
    """Send anything as `pickled` has it.

    Raises:
        RuntimeError: nobody takes it.
    """
    data = torch.frombuffer(pickled(content), dtype=torch.uint8)
    for part in (torch.tensor([len(data)]), data):
        _wait(dist.isend(part, rank), patience)


def get(rank: int, patience: timedelta) -> Any:
    """What `put` sent; raises as it does."""
    size = torch.empty(1, dtype=torch.int64)
    _wait(dist.irecv(size, rank), patience)
    data = torch.empty(int(size), dtype=torch.uint8)
    _wait(dist.irecv(data, rank), patience)
    return pickle.loads(data.numpy().data)


def _wait(work: dist.Work | None, patience: timedelta) -> None:
    assert work is not None
    work.wait(patience)
