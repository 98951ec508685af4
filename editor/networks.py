"""The learned editors' networks, one per weight shape, with the optimizer that trains them; on disk too.

A checkpoint of them is a folder: tensors.safetensors (networks, optimizer and statistics, so that training need not
be repeated) and checkpoint.json, which says what it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from config.check import ConfigError
from config.editors import LearnedConfig
from editor.base import Shape, below
from editor.sites import EditSite
from files import read_json, sha256_of, whole_folder, write_json
from nets import EditNetwork

TENSORS, DESCRIPTION = "tensors.safetensors", "checkpoint.json"


class Networks:
    """A network per weight shape; a site's place among the sites of its shape is its row of scale, shift, lr, lamda."""

    def __init__(self, cfg: LearnedConfig, sites: Sequence[EditSite], seed: int, device: torch.device) -> None:
        self.shapes: list[Shape] = [site.shape for site in sites]
        self.places = [self.shapes[:index].count(shape) for index, shape in enumerate(self.shapes)]
        generator = torch.Generator().manual_seed(seed)
        sizes: dict[str, Any] = {"rank": cfg.rank, "n_blocks": cfg.n_blocks, "lr": cfg.lr, "generator": generator}
        self.by_shape = {
            shape: EditNetwork(*shape, n_sites=self.shapes.count(shape), **sizes).to(device)
            for shape in dict.fromkeys(self.shapes)
        }
        self.parameters = [p for network in self.by_shape.values() for p in network.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=cfg.meta_lr)

    def at(self, site: int) -> tuple[EditNetwork, int]:
        """The network of a site, by its index, and the site's place in it."""
        return self.by_shape[self.shapes[site]], self.places[site]

    def step(self) -> None:
        """Update the networks by the gradients that were gathered, and forget these."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradients(self) -> list[Tensor | None]:
        """Copies of the gradients gathered so far."""
        return [None if p.grad is None else p.grad.clone() for p in self.parameters]

    def put_back(self, gradients: Sequence[Tensor | None]) -> None:
        """Take over what `gradients` gave."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    def tensors(self) -> dict[str, Tensor]:
        """Networks, optimizer and the gradients gathered since the last update, by name."""
        found: dict[str, Tensor] = {}
        for shape, network in self.by_shape.items():
            found |= {f"network/{shape}/{name}": value for name, value in network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                found[f"gathered/{index}"] = parameter.grad
        return found

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for shape, network in self.by_shape.items():
            network.load_state_dict(below(tensors, f"network/{shape}/"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in below(tensors, "optimizer/").items():
            index, _, key = name.partition("/")
            state.setdefault(int(index), {})[key] = value.cpu() if key == "step" else value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        for name, value in below(tensors, "gathered/").items():
            self.parameters[int(name)].grad = value


Sites = Sequence[str] | Mapping[str, Shape]
"""The names of the sites in order, with their shapes where these are known already."""


def _description(cfg: LearnedConfig, sites: Sites) -> dict[str, Any]:
    """What a checkpoint must have in common with the editor that loads it."""
    shapes = {name: list(shape) for name, shape in sites.items()} if isinstance(sites, Mapping) else list(sites)
    return {"editor": cfg.name, "rank": cfg.rank, "n_blocks": cfg.n_blocks, "sites": shapes}


def save_checkpoint(folder: Path, cfg: LearnedConfig, sites: Sites, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint beside its place, then rename."""
    with whole_folder(folder) as fresh:
        save_file({name: value.contiguous() for name, value in tensors.items()}, fresh / TENSORS)
        write_json(fresh / DESCRIPTION, _description(cfg, sites) | {"sha256": sha256_of(fresh / TENSORS)})


def check_checkpoint(folder: str | Path, cfg: LearnedConfig, sites: Sites) -> None:
    """Refuse editor.load_checkpoint where it cannot serve, as far as that shows without its tensors.

    Raises:
        ConfigError: no checkpoint, or one of another editor, rank, number of blocks or sites; names what differs.
    """
    wanted = _description(cfg, sites)
    try:
        saved = read_json(Path(folder).expanduser() / DESCRIPTION)
        found = {key: saved[key] for key in wanted}
        found["sites"] = type(wanted["sites"])(found["sites"])
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise _no_checkpoint(folder, error) from error
    for key, value in wanted.items():
        if found[key] != value:
            raise ConfigError(f"editor.load_checkpoint={folder}: its {key} is {found[key]}, this run's is {value}")


def read_checkpoint(folder: str | Path, device: torch.device) -> dict[str, Tensor]:
    """The tensors that save_checkpoint was given.

    Raises:
        ConfigError: they cannot be read.
    """
    path = Path(folder).expanduser()
    try:
        if sha256_of(path / TENSORS) != read_json(path / DESCRIPTION)["sha256"]:
            raise ValueError(f"{TENSORS} does not have the sha256 that {DESCRIPTION} names")
        return load_file(path / TENSORS, device=str(device))
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise _no_checkpoint(folder, error) from error


def _no_checkpoint(folder: str | Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"editor.load_checkpoint={folder}: is no checkpoint ({error}); name the folder 'checkpoint' of a run "
        "that had editor.save_checkpoint=true"
    )
