"""How much is handled at once, where the configuration says auto: what suits a kind of device."""

from __future__ import annotations

from config.choices import AUTO

SIZES = {
    "editor.tokens_per_pass": {"cpu": 320, "cuda": 4096},
    "eval.tokens_per_batch": {"cpu": 2048, "cuda": 8192},
    "downstream.batch_size": {"cpu": 16, "cuda": 64},
}
"""Padded tokens of a forward and backward pass, of a scoring forward pass, and sequences of a downstream one.

A processor's cache holds little; a GPU waits for work below these.
"""


def at_once(key: str, asked: int | str, kind: str) -> int:
    """A number, or what auto means for a key on a kind of device (torch.device.type)."""
    return SIZES[key].get(kind, SIZES[key]["cpu"]) if asked == AUTO else int(asked)
