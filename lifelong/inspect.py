"""What can be edited in a model, and what that costs: the listing of python main.py inspect=true."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from config.check import ConfigError
from config.schema import Config
from config.sites import fold_sites, layers, override, pattern, ranges
from editor.sites import EditSite, check_sites, find_sites
from model import model_skeleton
from report.terminal import aligned

MIB = 2**20
DOUBLE = 8  # bytes of a float64, in which statistics are kept


@dataclass(frozen=True, slots=True)
class Group:
    """Modules of one weight shape whose names differ in layer numbers only."""

    pattern: str
    kind: str
    shape: tuple[int, int]
    names: list[str]

    @property
    def each(self) -> int:
        """Parameters of one module's weight."""
        return prod(self.shape)

    def label(self) -> str:
        """The names with their layers as ranges, as model.layers.{0-29}.mlp.down_proj."""
        return ", ".join(fold_sites(self.names))


def editable_sites(model: nn.Module) -> tuple[list[EditSite], dict[str, str]]:
    """The sites that check_sites accepts, in the model's order, and why other linear modules are refused, by name."""
    sites, refused = [], {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            try:
                sites += find_sites(model, [name])
            except ConfigError as error:
                refused[name] = str(error).removeprefix("model.edit_modules: ")
    return sites, refused


def grouped(sites: Sequence[EditSite]) -> list[Group]:
    """Sites by pattern and shape, in the order of each group's first module."""
    found: dict[tuple[str, str, tuple[int, int]], list[str]] = defaultdict(list)
    for site in sites:
        found[pattern(site.name), type(site.module).__name__, site.shape].append(site.name)
    return [Group(*key, names) for key, names in found.items()]


def statistics_bytes(shape: tuple[int, int], *, covariance: bool = False, key_covariance: bool = False) -> int:
    """Bytes of the running statistics of one weight shape (nets.RunningStatistics): mean, deviations, covariances."""
    d_k, d_v = shape
    return DOUBLE * (2 * (d_k + d_v) + covariance * d_v * d_v + key_covariance * d_k * d_k)


def inspect_model(cfg: Config) -> str:
    """The editable modules of cfg.model with shapes, sizes and what is chosen now, as text; loads no weights.

    Raises:
        ConfigError: the model cannot be opened.
    """
    model = model_skeleton(cfg.model)
    sites, refused = editable_sites(model)
    groups = grouped(sites)
    accepted = {site.name for site in sites}
    chosen = [name for name in cfg.model.edit_modules if name in accepted]
    parts = [
        f"{cfg.model.name_or_path}: {type(model).__name__}, {model.num_parameters():,} parameters",
        _modules(groups, set(chosen)),
        _shapes(groups, set(chosen)),
        _totals(model, sites, set(chosen)),
        *(f"not editable: {reason}" for reason in refused.values()),
        *_not_found(model, cfg.model.edit_modules),
        _example(groups, chosen),
    ]
    return "\n\n".join(parts)


def _not_found(model: PreTrainedModel, names: Sequence[str]) -> list[str]:
    try:
        check_sites(model, names)
    except ConfigError as error:
        return [f"as it stands a run would be refused: {error}"]
    return []


def _modules(groups: Sequence[Group], chosen: set[str]) -> str:
    rows, header = [], ("", "modules", "kind", "count", "[d_k, d_v]", "parameters each", "chosen now")
    for group in groups:
        mine = [name for name in group.names if name in chosen]
        outermost = ranges(layers(name)[0] for name in mine if layers(name))
        told = f"{len(mine)} ({outermost})" if outermost else str(len(mine) or "")
        shape = f"[{group.shape[0]}, {group.shape[1]}]"
        cells = (group.label(), group.kind, str(len(group.names)), shape, f"{group.each:,}", told)
        rows.append(("*" if mine else "", *cells))
    return aligned(header, rows, left=(0, 1, 2, 6))


def _shapes(groups: Sequence[Group], chosen: set[str]) -> str:
    by_shape: dict[tuple[int, int], list[str]] = defaultdict(list)
    for group in groups:
        by_shape[group.shape] += group.names
    header = ("", "statistics per weight shape", "modules", "MiB (original)", "MiB (stable)", "MiB (stable, key_ridge)")
    rows = []
    for shape, names in by_shape.items():
        kept: tuple[dict[str, bool], ...] = ({}, {"covariance": True}, {"covariance": True, "key_covariance": True})
        sizes = [f"{statistics_bytes(shape, **more) / MIB:,.2f}" for more in kept]
        mark = "*" if chosen.intersection(names) else ""
        rows.append((mark, f"[{shape[0]}, {shape[1]}]", str(len(names)), *sizes))
    return aligned(header, rows, left=(0, 1))


def _totals(model: PreTrainedModel, sites: Sequence[EditSite], chosen: set[str]) -> str:
    rows, header = [], ("", "total", "modules", "parameters", "share", "MiB in bfloat16", "MiB in float32")
    for label, some in (("editable", sites), ("chosen now", [site for site in sites if site.name in chosen])):
        count = sum(prod(site.shape) for site in some)
        share = f"{count / model.num_parameters():.1%}"
        sizes = (f"{count * width / MIB:,.1f}" for width in (2, 4))
        rows.append(("", label, str(len(some)), f"{count:,}", share, *sizes))
    return aligned(header, rows, left=(0, 1))


def _example(groups: Sequence[Group], chosen: Sequence[str]) -> str:
    if not groups:
        return "no module of this model can be edited"
    # feed-forward weights hold facts; of equal ones the last is the down-projection, the usual choice
    best = max(reversed(groups), key=lambda group: (".mlp." in group.pattern, len(group.names) * group.each))
    names = chosen or best.names[-3:]
    said = "chosen now, to copy and change" if chosen else "for example"
    return f"{said}:\n  '{override(names)}'"
