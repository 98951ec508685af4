"""The learned editors' networks, one per weight shape, with the optimizer that trains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from config.schema import LearnedConfig
from editor.base import Shape, below
from editor.sites import EditSite
from nets import EditNetwork


class Networks:
    """A network per weight shape; a site's place among the sites of its shape is its row of scale, shift, lr, lamda."""

    def __init__(self, cfg: LearnedConfig, sites: Sequence[EditSite], seed: int, device: torch.device) -> None:
        self.shapes: list[Shape] = [site.shape for site in sites]
        self.places = [self.shapes[:index].count(shape) for index, shape in enumerate(self.shapes)]
        generator = torch.Generator().manual_seed(seed)
        self.by_shape = {shape: self._made(cfg, shape, generator).to(device) for shape in dict.fromkeys(self.shapes)}
        self.parameters = [p for network in self.by_shape.values() for p in network.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=cfg.meta_lr)

    def _made(self, cfg: LearnedConfig, shape: Shape, generator: torch.Generator) -> EditNetwork:
        sites = self.shapes.count(shape)
        return EditNetwork(*shape, rank=cfg.rank, n_blocks=cfg.n_blocks, n_sites=sites, lr=cfg.lr, generator=generator)

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

    def tensors(self, *, gathered: bool = False) -> dict[str, Tensor]:
        """Networks and optimizer by name, with the gradients gathered so far where asked for."""
        found: dict[str, Tensor] = {}
        for shape, network in self.by_shape.items():
            found |= {f"network/{shape}/{name}": value for name, value in network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
        if gathered:
            kept = ((index, parameter.grad) for index, parameter in enumerate(self.parameters))
            found |= {f"gathered/{index}": gradient for index, gradient in kept if gradient is not None}
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
