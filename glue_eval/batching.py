"""Which questions share a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def token_batches(lengths: Sequence[int], batch_size: int, tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of similar lengths, longest first: at most batch_size each, and at most tokens_per_batch padded tokens.

    A single sequence longer than tokens_per_batch is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
    while order:
        count = max(1, min(batch_size, tokens_per_batch // max(1, lengths[order[0]])))
        yield order[:count]
        order = order[count:]


def pass_sizes(lengths: Sequence[int], pass_cost: int) -> list[int]:
    """Cut sequences, longest first, into consecutive passes of least cost; return how many each pass takes.

    A pass costs its padded tokens plus `pass_cost`, what a pass costs beside its tokens, in tokens.
    """
    best, sizes = [0] * (len(lengths) + 1), [0] * len(lengths)
    for start in reversed(range(len(lengths))):
        best[start], sizes[start] = min(
            (pass_cost + size * lengths[start] + best[start + size], size)
            for size in range(1, len(lengths) - start + 1)
        )
    found, start = [], 0
    while start < len(lengths):
        found.append(sizes[start])
        start += sizes[start]
    return found
