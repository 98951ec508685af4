"""A rank above 0 of a run under torchrun: a model that follows rank 0's, and does with it what rank 0 asks for."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from config.schema import ModelConfig
from editor.frozen import frozen_inputs
from editor.journal import Change, SavedSite
from editor.ranks import ALONE, Here, Work
from editor.ridge import Shift
from editor.sites import EditSite, find_sites
from lifelong.gloo import FOREVER, get, meet, put
from lifelong.scored_model import identity
from lifelong.status import SIGNALS
from model import load_model, load_tokenizer

Changes = list[list[Change]]
"""What happened to each site, in the order of the sites."""


class Follower:
    """What rank 0 may ask for, a method each."""

    here: Here

    def __init__(self) -> None:
        self.copies: dict[str, SavedSite] = {}

    def start(self, cfg: ModelConfig, kind: str, *, masters: bool) -> str:
        """Load the model, on a device of this kind; its identity."""
        for signum in SIGNALS:  # rank 0 hears them too, and sends home once its state is saved
            signal.signal(signum, signal.SIG_IGN)
        device = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
        model = load_model(cfg, device)
        sites = find_sites(model, cfg.edit_modules, masters=masters)
        self.here = Here(model, sites, frozen_inputs(model, cfg), load_tokenizer(cfg))
        return identity(model)

    def work(self, changes: Changes, work: Work, items: Sequence[Any]) -> list[Any]:
        """What the work makes of each item, once the weights have changed."""
        self._change(changes)
        return list(ALONE.deal(self.here, work, items))

    def weights(self, changes: Changes) -> str:
        """The hash of the weights, once they have changed."""
        self._change(changes)
        return hash_of(self.here.sites)

    def _change(self, changes: Changes) -> None:
        for site, of_site in zip(self.here.sites, changes, strict=True):
            for change in of_site:
                if isinstance(change, Shift):
                    site.add(change)
                elif change == "keep":
                    self.copies[site.name] = site.snapshot()
                else:
                    site.restore(self.copies[site.name] if change == "back" else change)


def hash_of(sites: Sequence[EditSite]) -> str:
    """sha256 of the sites' weights, and of their masters."""
    digest = hashlib.sha256()
    for site in sites:
        for tensor in (site.weight, site.master):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def follow() -> int:
    """Do what rank 0 asks for, silently, until it asks no more; the exit status, 1 where rank 0 has gone."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, for good
    follower = Follower()
    methods: dict[str, Callable[..., Any]] = {
        "start": follower.start, "work": follower.work, "weights": follower.weights
    }  # fmt: skip
    try:
        meet()
        while (asked := get(0, FOREVER)) is not None:
            name, words, options = asked
            try:
                found = methods[name](*words, **options)
            except Exception as error:
                found = error
            put(found, 0, FOREVER)
    except RuntimeError:
        return 1
    return 0
