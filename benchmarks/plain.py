"""An edit step of StableEdit as the published program makes it, from the equations of docs/design.md, 2.

Shape suffixes: B sequences, T positions, W vocabulary, N rows, K = d_k, V = d_v, D = d_k + d_v.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config.schema import FloorMode
from data.batches import IGNORED, Batch
from editor.sites import EditSite
from nets import EPSILON, RunningStatistics

Pair = tuple[Tensor, Tensor]
"""Keys [N, K] and value gradients [N, V] of a site."""


@dataclass(slots=True)
class PlainStatistics:
    """Moments of rows [k, g], merged block by block in float32."""

    n: int
    mean_D: Tensor
    m2_D: Tensor
    scatter_VV: Tensor

    @classmethod
    def of(cls, statistics: RunningStatistics, dtype: torch.dtype = torch.float32) -> PlainStatistics:
        """A copy of ours."""
        assert statistics.scatter_VV is not None
        sums = (statistics.mean_D, statistics.m2_D, statistics.scatter_VV)
        return cls(statistics.n, *(x.to(dtype, copy=True) for x in sums))

    def add(self, keys_NK: Tensor, gradients_NV: Tensor) -> None:
        """Merge a block of rows (docs/design.md, 2.3)."""
        rows_ND = torch.cat((keys_NK, gradients_NV), 1)
        m, n = len(rows_ND), self.n
        delta_D = rows_ND.mean(0) - self.mean_D
        delta_V = delta_D[-gradients_NV.shape[1] :]
        centered_NV = gradients_NV - gradients_NV.mean(0)
        self.n = n + m
        self.mean_D += delta_D * m / self.n
        self.m2_D += m * rows_ND.var(0, correction=0) + delta_D.square() * n * m / self.n
        self.scatter_VV += centered_NV.T @ centered_NV + torch.outer(delta_V, delta_V) * n * m / self.n

    def root(self, floor: float, *, relative: bool = False) -> Tensor:
        """C~^(-1/2) [V, V] of C~ = C / (n - d_v - 1), eigenvalues raised to the floor."""
        values_V, vectors_VV = torch.linalg.eigh(self.scatter_VV / (self.n - len(self.scatter_VV) - 1))
        lowest = floor * (values_V[-1].item() if relative else 1.0)
        return (vectors_VV * values_V.clamp(min=lowest).rsqrt()) @ vectors_VV.T

    def targets(self, keys_NK: Tensor, gradients_NV: Tensor, cfg: Any) -> Tensor:
        """Target rows -lr |k^|^2 g^ [N, V]: keys normalized per coordinate, value gradients whitened."""
        d_k = keys_NK.shape[1]
        std_K = (self.m2_D[:d_k] / (self.n - 1)).sqrt()
        normal_NK = (keys_NK - self.mean_D[:d_k]) / (std_K + EPSILON)
        root_VV = self.root(cfg.whitening_floor, relative=cfg.whitening_floor_mode is FloorMode.relative)
        return -cfg.lr * normal_NK.square().sum(1, keepdim=True) * ((gradients_NV - self.mean_D[d_k:]) @ root_VV)


def plain_step(
    sites: Sequence[EditSite],
    captured: Iterable[Sequence[Pair]],
    statistics: Mapping[tuple[int, int], PlainStatistics],
    cfg: Any,
) -> list[Tensor]:
    """Write one step's edits with the editor's `cfg`: rows through files, whole shifts; the shift [K, V] of every site.

    `captured` gives the rows of every site, micro-batch by micro-batch.
    """
    files: dict[EditSite, list[str]] = {site: [] for site in sites}
    with tempfile.TemporaryDirectory(prefix="plain-step-") as folder:
        for number, pairs in enumerate(captured):
            for index, (site, pair) in enumerate(zip(sites, pairs, strict=True)):
                files[site].append(f"{folder}/{number}_{index}.pt")
                torch.save(pair, files[site][-1])
        for blocks in zip(*files.values(), strict=True):
            for site, file in zip(sites, blocks, strict=True):
                statistics[site.shape].add(*torch.load(file))
        shifts = [_shift(files[site], statistics[site.shape], cfg) for site in sites]
    for site, shift_KV in zip(sites, shifts, strict=True):
        shift_KV.norm().item()
        site.module.weight.grad = None
        site.module.weight.requires_grad_(False)
        site.weight.add_((shift_KV.T if site.transposed else shift_KV).to(site.weight.dtype))
    return shifts


def _shift(files: Sequence[str], statistics: PlainStatistics, cfg: Any) -> Tensor:
    """S [K, V] of one site from its files: targets chunk by chunk, then the d_k x d_k system."""
    keys_NK, gradients_NV = (torch.cat(parts) for parts in zip(*map(torch.load, files), strict=True))
    chunks = zip(keys_NK.split(cfg.batch_size), gradients_NV.split(cfg.batch_size), strict=True)
    return plain_ridge(keys_NK, torch.cat([statistics.targets(*chunk, cfg) for chunk in chunks]), cfg.alpha)


def plain_ridge(keys_NK: Tensor, targets_NV: Tensor, alpha: float, *, cholesky: bool = False) -> Tensor:
    """S = (K^T K + alpha I)^(-1) K^T V [K, V] as it stands, in the rows' dtype, by LU or Cholesky."""
    gram_KK = keys_NK.T @ keys_NK
    gram_KK.diagonal().add_(alpha)
    if cholesky:
        return torch.cholesky_solve(keys_NK.T @ targets_NV, torch.linalg.cholesky(gram_KK))
    return torch.linalg.solve(gram_KK, keys_NK.T @ targets_NV)


def plain_capture(model: nn.Module, sites: Sequence[EditSite], batches: Iterable[Batch]) -> Iterator[list[Pair]]:
    """The rows of every site, micro-batch by micro-batch: forward and backward with weight gradients."""
    seen: dict[nn.Module, Pair] = {}

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        seen[module] = (inputs[0].detach(), output)

    for site in sites:
        site.module.weight.requires_grad_(True)
    handles = [site.module.register_forward_hook(watch) for site in sites]
    for batch in batches:
        batch = batch.to(sites[0].weight.device)
        mask_BT = batch.labels_BT != IGNORED
        with torch.enable_grad():
            logits_BTW = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT).logits
            loss = cross_entropy(logits_BTW.flatten(0, 1).float(), batch.labels_BT.flatten(), ignore_index=IGNORED)
            loss.backward()
        loss.item()
        rows = [(seen[site.module][0], seen[site.module][1].grad) for site in sites]
        yield [(keys[mask_BT].float(), gradients[mask_BT].float()) for keys, gradients in rows if gradients is not None]
    for handle in handles:
        handle.remove()
