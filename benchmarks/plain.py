"""An edit step of StableEdit as the published program makes it, from the equations of docs/design.md, 2.

Weights that ask for gradients, logits of the whole vocabulary everywhere, rows written to files and read back,
statistics block by block, a decomposition per site and chunk, the d_k x d_k system, whole shifts, a look at every
logged number.

Shape suffixes: B sequences, T positions, W vocabulary, N rows, C rows of a chunk, K = d_k, V = d_v, D = d_k + d_v.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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

    def root(self, floor: float, *, relative: bool) -> Tensor:
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
    """Write one step's edits; the shift [K, V] of every site.

    `captured` gives the rows of every site, micro-batch by micro-batch; `cfg` is the editor's.
    """
    with tempfile.TemporaryDirectory(prefix="plain-step-") as folder:
        files: dict[EditSite, list[Path]] = {site: [] for site in sites}
        for number, pairs in enumerate(captured):
            for index, (site, pair) in enumerate(zip(sites, pairs, strict=True)):
                files[site].append(Path(folder) / f"{number}_{index}.pt")
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


def _shift(files: Sequence[Path], statistics: PlainStatistics, cfg: Any) -> Tensor:
    """S [K, V] of one site from its files: targets chunk by chunk, then the d_k x d_k system."""
    keys_NK, gradients_NV = (torch.cat(parts) for parts in zip(*map(torch.load, files), strict=True))
    chunks = zip(keys_NK.split(cfg.batch_size), gradients_NV.split(cfg.batch_size), strict=True)
    return plain_ridge(keys_NK, torch.cat([statistics.targets(*chunk, cfg) for chunk in chunks]), cfg.alpha)


def plain_ridge(keys_NK: Tensor, targets_NV: Tensor, alpha: float) -> Tensor:
    """S = (K^T K + alpha I)^(-1) K^T V [K, V] as it stands, in the rows' dtype, by an LU factorization."""
    gram_KK = keys_NK.T @ keys_NK
    gram_KK.diagonal().add_(alpha)
    return torch.linalg.solve(gram_KK, keys_NK.T @ targets_NV)


def plain_capture(model: nn.Module, sites: Sequence[EditSite], batches: Iterable[Batch]) -> Iterator[list[Pair]]:
    """The rows of every site, micro-batch by micro-batch: forward and backward with weight gradients."""
    for site in sites:
        site.module.weight.requires_grad_(True)
    for batch in batches:
        batch = batch.to(sites[0].weight.device)
        seen: dict[str, Tensor] = {}
        handles = [site.module.register_forward_hook(_watch(seen, site.name)) for site in sites]
        with torch.enable_grad():
            logits_BTW = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT).logits
            loss = cross_entropy(logits_BTW.flatten(0, 1).float(), batch.labels_BT.flatten(), ignore_index=IGNORED)
            loss.backward()
        loss.item()
        for handle in handles:
            handle.remove()
        mask_BT = batch.labels_BT != IGNORED
        yield [
            (seen[f"{site.name}.keys"][mask_BT].float(), seen[f"{site.name}.gradients"][mask_BT].float())
            for site in sites
        ]


def _watch(seen: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[f"{name}.keys"] = inputs[0].detach()
        output.register_hook(lambda gradient: seen.update({f"{name}.gradients": gradient}))

    return hook
