"""An edit step of StableEdit as the published program makes it, from the equations of docs/design.md, 2.

Shape suffixes: B sequences, T positions, W vocabulary, N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config.editors import RidgeConfig
from data.batches import IGNORED, Batch
from editor.base import Editor
from editor.cache import FileCache
from editor.capture import Rows
from linear import OneDnnLinear
from nets import EPSILON, RunningStatistics


@contextmanager
def plain_products(model: nn.Module) -> Iterator[None]:
    """Inside the block the model's linear layers multiply as torch does."""
    layers: list[Any] = [module for module in model.modules() if type(module) is OneDnnLinear]
    for layer in layers:
        layer.__class__ = nn.Linear
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = OneDnnLinear


def plain_root(statistics: RunningStatistics, floor: float) -> Tensor:
    """C~^(-1/2) [V, V] of C~ = C / (n - d_v - 1), eigenvalues raised to the floor."""
    assert statistics.scatter_VV is not None
    covariance_VV = statistics.scatter_VV.float() / (statistics.n - statistics.d_v - 1)
    values_V, vectors_VV = torch.linalg.eigh(covariance_VV)
    return (vectors_VV * values_V.clamp(min=floor).rsqrt()) @ vectors_VV.T


def plain_targets(rows: Rows, statistics: RunningStatistics, cfg: RidgeConfig, *, warm_up: bool) -> Tensor:
    """Target rows -lr |k^|^2 g^ [N, V]: normalized per coordinate, value gradients whitened after the warm-up."""
    d_k = statistics.d_k
    mean_D, std_D = statistics.mean_D.float(), statistics.std_D.float()
    normal_NK = (rows.keys_NK - mean_D[:d_k]) / (std_D[:d_k] + EPSILON)
    white_NV = rows.gradients_NV - mean_D[d_k:]
    if warm_up or not statistics.whitens:
        white_NV /= std_D[d_k:] + EPSILON
    else:
        white_NV = white_NV @ plain_root(statistics, cfg.whitening_floor)
    return -cfg.lr * normal_NK.square().sum(1, keepdim=True) * white_NV


def plain_ridge(keys_NK: Tensor, targets_NV: Tensor, alpha: float) -> Tensor:
    """S = (K^T K + alpha I)^(-1) K^T V [K, V] as it stands."""
    gram_KK = keys_NK.T @ keys_NK
    gram_KK.diagonal().add_(alpha)
    return torch.linalg.solve(gram_KK, keys_NK.T @ targets_NV)


def plain_step(editor: Editor, captured: Iterable[list[Rows]], *, warm_up: bool = False) -> list[Tensor]:
    """Write one step's edits with the editor's settings: rows through files, whole shifts; each site's shift [K, V].

    `captured` gives the rows of every site, micro-batch by micro-batch; the sites are nn.Linear. The editor's
    statistics go on.
    """
    sites, cfg = editor.sites, cast(RidgeConfig, editor.cfg)
    statistics = {shape: deepcopy(found) for shape, found in editor.statistics.items()}
    with tempfile.TemporaryDirectory(prefix="plain-step-") as folder:
        cache = FileCache(Path(folder), editor.solve_device)
        for rows in captured:
            cache.put(rows)
        for index, site in enumerate(sites):
            for block in cache.blocks([index]):
                statistics[site.shape].add(*block)
        gathered = ((cache.gather(index), statistics[site.shape]) for index, site in enumerate(sites))
        shifts = [
            plain_ridge(rows.keys_NK, plain_targets(rows, known, cfg, warm_up=warm_up), cfg.alpha)
            for rows, known in gathered
        ]
    for site, shift_KV in zip(sites, shifts, strict=True):
        shift_KV.norm().item()
        site.module.weight.grad = None
        site.module.weight.requires_grad_(False)
        site.weight.add_(shift_KV.T.to(site.weight.dtype))
    editor.statistics = statistics
    return shifts


def plain_capture(editor: Editor, batches: Iterable[Batch]) -> Iterator[list[Rows]]:
    """The rows of every site, micro-batch by micro-batch: forward and backward with weight gradients."""
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        seen.append((inputs[0].detach(), output))

    handles = [site.module.requires_grad_(True).register_forward_hook(watch) for site in editor.sites]
    for batch in (one.to(editor.model.device) for one in batches):
        seen.clear()
        with torch.enable_grad(), plain_products(editor.model):
            logits_BTW = editor.model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT).logits
            loss = cross_entropy(logits_BTW.flatten(0, 1).float(), batch.labels_BT.flatten(), ignore_index=IGNORED)
            loss.backward()
        loss.item()
        pairs = ((keys, output.grad) for keys, output in seen)
        at = batch.labels_BT != IGNORED
        yield [Rows(keys[at].float(), gradients[at].float()) for keys, gradients in pairs if gradients is not None]
    for handle in handles:
        handle.remove()
