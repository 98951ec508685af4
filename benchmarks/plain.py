"""An edit step of StableEdit as the published program makes it, from the equations of docs/design.md, 2.

Weights that ask for gradients, logits of the whole vocabulary everywhere, rows written to files and read back,
statistics block by block, a decomposition per site and chunk, the d_k x d_k system, whole shifts, a look at every
logged number.

Shape suffixes: B sequences, T positions, W vocabulary, N rows, K = d_k, V = d_v, D = d_k + d_v.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config.schema import Config, FloorMode
from data.batches import IGNORED, Batch
from editor.sites import EditSite
from nets import EPSILON, RunningStatistics


@dataclass(slots=True)
class PlainStatistics:
    """Moments of rows [k, g], merged block by block in float32."""

    n: int
    mean_D: Tensor
    m2_D: Tensor
    scatter_VV: Tensor

    @classmethod
    def of(cls, statistics: RunningStatistics) -> PlainStatistics:
        """A copy of ours."""
        assert statistics.scatter_VV is not None
        sums = (statistics.mean_D, statistics.m2_D, statistics.scatter_VV)
        return cls(statistics.n, *(x.to(torch.float32, copy=True) for x in sums))

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

    def normalize(self, keys_NK: Tensor, gradients_NV: Tensor, root_VV: Tensor) -> tuple[Tensor, Tensor]:
        """Keys per coordinate, value gradients whitened."""
        d_k = keys_NK.shape[1]
        std_K = (self.m2_D[:d_k] / (self.n - 1)).sqrt()
        return (keys_NK - self.mean_D[:d_k]) / (std_K + EPSILON), (gradients_NV - self.mean_D[d_k:]) @ root_VV


def plain_step(
    model: nn.Module,
    sites: Sequence[EditSite],
    batches: Sequence[Batch],
    statistics: Mapping[tuple[int, int], PlainStatistics],
    cfg: Config,
) -> list[Tensor]:
    """Write one step's edits; the shift [K, V] of every site."""
    with tempfile.TemporaryDirectory(prefix="plain-step-") as folder:
        for number, batch in enumerate(batches):
            _cache_rows(model, sites, batch, Path(folder), number)
        for number in range(len(batches)):
            for index, site in enumerate(sites):
                statistics[site.shape].add(*torch.load(_path(Path(folder), number, index)))
        shifts, norms = [], []
        for index, site in enumerate(sites):
            files = [_path(Path(folder), number, index) for number in range(len(batches))]
            shifts.append(_shift(files, statistics[site.shape], cfg))
            norms.append(shifts[-1].norm().item())
    for site, shift_KV in zip(sites, shifts, strict=True):
        site.module.weight.grad = None
        site.module.weight.requires_grad_(False)
        site.weight.add_((shift_KV.T if site.transposed else shift_KV).to(site.weight.dtype))
    return shifts


def _path(folder: Path, number: int, index: int) -> Path:
    return folder / f"{number}_{index}.pt"


def _cache_rows(model: nn.Module, sites: Sequence[EditSite], batch: Batch, folder: Path, number: int) -> None:
    """Forward and backward with weight gradients; a file of rows per site."""
    batch = batch.to(sites[0].weight.device)
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[f"{name}.keys"] = inputs[0].detach()
            output.register_hook(lambda gradient: seen.update({f"{name}.gradients": gradient}))

        return hook

    handles = []
    for site in sites:
        site.module.weight.requires_grad_(True)
        handles.append(site.module.register_forward_hook(watch(site.name)))
    with torch.enable_grad():
        logits_BTW = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT).logits
        loss = cross_entropy(logits_BTW.flatten(0, 1).float(), batch.labels_BT.flatten(), ignore_index=IGNORED)
        loss.backward()
    loss.item()
    mask_BT = batch.labels_BT != IGNORED
    for handle in handles:
        handle.remove()
    for index, site in enumerate(sites):
        rows = tuple(seen[f"{site.name}.{kind}"][mask_BT].float() for kind in ("keys", "gradients"))
        torch.save(rows, _path(folder, number, index))


def _shift(files: Sequence[Path], statistics: PlainStatistics, cfg: Config) -> Tensor:
    """S [K, V] of one site from its files, chunk by chunk, then the d_k x d_k system."""
    keys, gradients = zip(*(torch.load(file) for file in files), strict=True)
    keys_NK, gradients_NV = torch.cat(keys), torch.cat(gradients)
    targets = []
    for keys_CK, gradients_CV in zip(
        keys_NK.split(cfg.editor.batch_size), gradients_NV.split(cfg.editor.batch_size), strict=True
    ):
        relative = cfg.editor.whitening_floor_mode is FloorMode.relative
        root_VV = statistics.root(cfg.editor.whitening_floor, relative=relative)  # again for every chunk
        normal_CK, white_CV = statistics.normalize(keys_CK, gradients_CV, root_VV)
        targets.append(-cfg.editor.lr * normal_CK.square().sum(1, keepdim=True) * white_CV)
    return plain_ridge(keys_NK, torch.cat(targets), cfg.editor.alpha)


def plain_ridge(keys_NK: Tensor, targets_NV: Tensor, alpha: float) -> Tensor:
    """S = (K^T K + alpha I)^(-1) K^T V [K, V] as it stands, in the rows' dtype, by an LU factorization."""
    gram_KK = keys_NK.T @ keys_NK
    gram_KK.diagonal().add_(alpha)
    return torch.linalg.solve(gram_KK, keys_NK.T @ targets_NV)
