"""Edit sites: the modules named in model.edit_modules, whatever the layout of their weights."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from config.check import ConfigError
from editor.journal import Journal, SavedSite
from editor.ridge import Shift

BLOCK = 2**22
"""Entries of a shift that exist at a time while it is written: 16 MiB in float32."""
PIECE = 2**17
"""Entries that are added and compared at a time: what a processor's cache holds."""
ON_GPU = 2**26
"""Both of these on a GPU, where every operator has a price: a 7B model's matrix, with 0.6 GiB beside it."""


class EditSite:
    """One edited module, seen as a weight [d_k, d_v] that maps keys to values.

    An nn.Linear stores the transpose; Conv1D (GPT-2) stores it as it is. With `masters` a float32
    copy accumulates the shifts, so that a low-precision weight loses none of them.
    """

    def __init__(self, name: str, module: nn.Module, *, masters: bool = False) -> None:
        self.name, self.module = name, module
        self.transposed = isinstance(module, nn.Linear)
        first, second = self.weight.shape
        self.d_k, self.d_v = (second, first) if self.transposed else (first, second)
        self.master = self.weight.float().clone() if masters else None
        self.journal: Journal | None = None
        """Kept where other processes hold the same weight (lifelong/ranks.py)."""

    @property
    def shape(self) -> tuple[int, int]:
        """(d_k, d_v): sites of one shape share their statistics."""
        return self.d_k, self.d_v

    @property
    def weight(self) -> Tensor:
        """The weight as the module stores it, detached and sharing its memory."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    @torch.no_grad()
    def add(self, shift: Shift) -> Tensor:
        """W += S in the weight's own dtype, BLOCK entries at a time; returns the share of changes that left no trace.

        A shift on another device comes here as its factors. The share is a 0-dim tensor on the weight's device:
        entries with S != 0 whose weight is bitwise the same afterwards, over entries with S != 0.
        """
        weight, counts = self.weight, list[Tensor]()
        on_cpu, shift = weight.device.type == "cpu", shift.beside(weight.device)
        height = max(1, (BLOCK if on_cpu else ON_GPU) // weight.shape[1])
        for start in range(0, weight.shape[0], height):
            cut = slice(start, start + height)
            block = (shift.columns(cut) if self.transposed else shift.rows(cut)).to(weight.device)
            put = self._add_block if on_cpu else self._add_piece
            counts.append(put(weight[cut], None if self.master is None else self.master[cut], block))
        if self.journal is not None:
            self.journal.added(shift)
        lost, wanted = reduce(torch.add, counts).unbind()
        return lost / wanted.clamp(min=1)

    @classmethod
    def _add_block(cls, weight: Tensor, master: Tensor | None, block: Tensor) -> Tensor:
        """Add to a block of the weight, PIECE entries at a time."""
        height = max(1, PIECE // weight.shape[1])
        cuts = [slice(start, start + height) for start in range(0, len(weight), height)]
        counts = [cls._add_piece(weight[cut], None if master is None else master[cut], block[cut]) for cut in cuts]
        return torch.stack(counts).sum(0)

    @staticmethod
    def _add_piece(weight: Tensor, master: Tensor | None, change: Tensor) -> Tensor:
        """Add to a piece of the weight, in place; (changes lost, changes wanted)."""
        before = weight.clone()
        if master is None:
            weight += change.to(weight.dtype)
        else:
            weight.copy_(master.add_(change))
        wanted = change != 0
        lost = wanted & (weight == before)
        return torch.stack((lost.count_nonzero(), wanted.count_nonzero()))

    def snapshot(self) -> SavedSite:
        """Copies to hand to restore: undoing is exact, which subtracting the shift is not."""
        saved = self.weight.clone(), None if self.master is None else self.master.clone()
        if self.journal is not None:
            self.journal.copied(saved)
        return saved

    @torch.no_grad()
    def restore(self, saved: SavedSite) -> None:
        """Put a snapshot back."""
        if self.journal is not None:
            self.journal.put_back(saved)
        self.weight.copy_(saved[0])
        if self.master is not None and saved[1] is not None:
            self.master.copy_(saved[1])


def check_sites(model: nn.Module, names: Sequence[str]) -> None:
    """Refuse sites that cannot be edited. Works on a model without weights (meta device).

    Raises:
        ConfigError: a site that does not exist (with the nearest names), is neither nn.Linear nor
            Conv1D, is named twice, or shares its weight with another module.
    """
    modules = dict(model.named_modules())
    editable = [name for name, module in modules.items() if isinstance(module, nn.Linear | Conv1D)]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"model.edit_modules: {name} is named twice; name each site once")
        seen.add(name)
        if name not in modules:
            close = difflib.get_close_matches(name, editable, n=3, cutoff=0.3) or editable[:3]
            raise ConfigError(f"model.edit_modules: the model has no module {name}; the nearest are {', '.join(close)}")
        if name not in editable:
            kind = type(modules[name]).__name__
            inside = [other for other in editable if other.startswith(f"{name}.")] or editable
            raise ConfigError(
                f"model.edit_modules: {name} is a {kind}, neither nn.Linear nor Conv1D; "
                f"editable are {', '.join(inside[:4])}"
            )
        _check_untied(model, name, modules[name])


def _check_untied(model: nn.Module, name: str, module: nn.Module) -> None:
    owners = [key for key, parameter in model.named_parameters(remove_duplicate=False) if parameter is module.weight]
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    partners = [key for key in owners if key != f"{name}.weight"]
    if partners or f"{name}.weight" in tied:
        other = partners[0] if partners else tied[f"{name}.weight"]
        raise ConfigError(
            f"model.edit_modules: {name} is tied to {other}; editing it would edit both, name another site"
        )


def find_sites(model: nn.Module, names: Sequence[str], *, masters: bool = False) -> list[EditSite]:
    """The sites by name, in the order given; see check_sites for what is refused."""
    check_sites(model, names)
    return [EditSite(name, model.get_submodule(name), masters=masters) for name in names]
