"""What can be edited in a model, and what that costs: the listing of python main.py inspect=true."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from math import prod

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from config.check import ConfigError
from config.schema import Config
from config.sites import fold_sites, layers, override, pattern, ranges
from editor.sites import EditSite, check_sites, find_sites
from lifelong.costs import step_costs
from model import model_skeleton
from report.terminal import aligned

MIB = 2**20
DOUBLE = 8  # bytes of a float64, in which statistics are kept
Shape = tuple[int, int]
Groups = dict[tuple[str, str, Shape], list[str]]
"""Modules that differ in layer numbers only, by their pattern, kind and weight shape."""


def inspect_model(cfg: Config) -> str:
    """The listing, without loading any weight; what is chosen now is marked with *.

    Raises:
        ConfigError: the model cannot be opened.
    """
    model = model_skeleton(cfg.model)
    sites, refused = editable_sites(model)
    groups: Groups = defaultdict(list)
    for site in sites:
        groups[pattern(site.name), type(site.module).__name__, site.shape].append(site.name)
    accepted = {site.name for site in sites}
    chosen = [name for name in cfg.model.edit_modules if name in accepted]
    parts = [
        f"{cfg.model.name_or_path}: {type(model).__name__}, {model.num_parameters():,} parameters",
        _modules(groups, chosen),
        _shapes(groups, chosen),
        _totals(model, sites, chosen),
        *(f"not editable: {reason}" for reason in refused),
    ]
    try:
        check_sites(model, cfg.model.edit_modules)
    except ConfigError as error:
        parts.append(f"as it stands a run would be refused: {error}")
    shapes = {site.name: site.shape for site in sites}
    parts += filter(None, [step_costs(cfg, model, chosen, [shapes[name] for name in chosen])])
    return "\n\n".join([*parts, _example(groups, chosen)])


def editable_sites(model: nn.Module) -> tuple[list[EditSite], list[str]]:
    """The sites that check_sites accepts, in the model's order, and why other linear modules are refused."""
    sites, refused = [], []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            try:
                sites += find_sites(model, [name])
            except ConfigError as error:
                refused.append(str(error).removeprefix("model.edit_modules: "))
    return sites, refused


def _modules(groups: Groups, chosen: Sequence[str]) -> str:
    rows, header = [], ("", "modules", "kind", "count", "[d_k, d_v]", "parameters each", "chosen now")
    for (_, kind, shape), names in groups.items():
        mine = [name for name in names if name in chosen]
        outermost = ranges(layers(name)[0] for name in mine if layers(name))
        told = f"{len(mine)} ({outermost})" if outermost else str(len(mine) or "")
        cells = (", ".join(fold_sites(names)), kind, str(len(names)), str(list(shape)), f"{prod(shape):,}", told)
        rows.append(("*" if mine else "", *cells))
    return aligned(header, rows, left=(0, 1, 2, 6))


def _shapes(groups: Groups, chosen: Sequence[str]) -> str:
    """The running statistics of each weight shape (nets.RunningStatistics): mean and deviations, covariances."""
    by_shape: dict[Shape, list[str]] = defaultdict(list)
    for (_, _, shape), names in groups.items():
        by_shape[shape] += names
    header = ("", "statistics per weight shape", "modules", "MiB (original)", "MiB (stable)")
    rows = []
    for (d_k, d_v), names in by_shape.items():
        sizes = [f"{DOUBLE * numbers / MIB:,.2f}" for numbers in accumulate((2 * (d_k + d_v), d_v * d_v))]
        rows.append(("*" if set(chosen) & set(names) else "", f"[{d_k}, {d_v}]", str(len(names)), *sizes))
    return aligned(header, rows, left=(0, 1))


def _totals(model: PreTrainedModel, sites: Sequence[EditSite], chosen: Sequence[str]) -> str:
    rows, header = [], ("", "total", "modules", "parameters", "share", "MiB in bfloat16", "MiB in float32")
    for label, some in (("editable", sites), ("chosen now", [site for site in sites if site.name in chosen])):
        count = sum(prod(site.shape) for site in some)
        sizes = (f"{count * width / MIB:,.1f}" for width in (2, 4))
        rows.append(("", label, str(len(some)), f"{count:,}", f"{count / model.num_parameters():.1%}", *sizes))
    return aligned(header, rows, left=(0, 1))


def _example(groups: Groups, chosen: Sequence[str]) -> str:
    if not groups:
        return "no module of this model can be edited"
    # feed-forward weights hold facts; of equal ones the last is the down-projection, the usual choice
    size = {key: (".mlp." in key[0], len(names) * prod(key[2])) for key, names in groups.items()}
    names = chosen or groups[max(reversed(groups), key=lambda key: size[key])][-3:]
    said = "chosen now, to copy and change" if chosen else "for example"
    return f"{said}:\n  '{override(names)}'"
