"""Linear layers multiplied by oneDNN: torch's own products, values and gradients, whatever the layout."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

import linear
from config.compose import compose_config
from linear import OneDnnLinear, use_onednn
from model import load_model
from tests.tiny import tiny_words

NEAR = 1e-6  # of float32 sums over 300 terms, relative to the norm


@pytest.fixture
def layers() -> tuple[nn.Linear, nn.Linear]:
    """A layer as torch multiplies it, in float64, and the same by oneDNN."""
    torch.manual_seed(0)
    plain = nn.Linear(300, 70).requires_grad_(False)
    ours = use_onednn(nn.Sequential(deepcopy(plain)))[0]
    assert type(ours) is OneDnnLinear
    return plain.double(), ours


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return float((found.double() - wanted).norm() / wanted.norm())


LAYOUTS = {
    "rows": torch.randn(5, 300),
    "one": torch.randn(300),
    "sequences": torch.randn(3, 7, 300),
    "every second": torch.randn(3, 7, 600)[:, :, ::2],
    "turned": torch.randn(7, 3, 300).transpose(0, 1),
    "one for all": torch.randn(1, 1, 300).expand(3, 7, 300),
    "one position": torch.randn(3, 7, 300)[:, -1:],
}
"""Inputs as models make them."""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_float64(layers, layout, bias):
    plain, ours = layers
    if not bias:
        plain.bias = ours.bias = None
    x = LAYOUTS[layout]
    wanted = plain(x.double())
    assert difference(ours(x), wanted) < NEAR and ours(x).shape == wanted.shape

    weights = torch.randn_like(wanted)
    x64, x32 = x.detach().double().requires_grad_(), x.detach().requires_grad_()
    (wanted,) = torch.autograd.grad((plain(x64) * weights).sum(), x64)
    (found,) = torch.autograd.grad((ours(x32) * weights.float()).sum(), x32)
    assert difference(found, wanted) < NEAR


def test_no_rows(layers):
    assert layers[1](torch.zeros(0, 4, 300)).shape == (0, 4, 70)


def test_a_write_into_the_weight_is_seen_at_once(layers):
    plain, ours = layers
    x = torch.randn(4, 300)
    before = ours(x)
    ours.weight.add_(1.0)
    plain.weight.add_(1.0)
    assert difference(ours(x), plain(x.double())) < NEAR and not torch.equal(ours(x), before)


def test_torch_multiplies_the_rest(layers, monkeypatch):
    """Another precision, a weight that asks for a gradient: what only torch's own product can do."""
    _, ours = layers
    monkeypatch.setattr("linear._product", None)
    half = deepcopy(ours).bfloat16()
    assert half(torch.ones(2, 300, dtype=torch.bfloat16)).dtype == torch.bfloat16
    ours.requires_grad_(True)
    ours(torch.ones(2, 300)).sum().backward()
    assert ours.weight.grad.shape == (70, 300)


def test_a_second_derivative_is_refused(layers):
    x = torch.randn(2, 300, requires_grad=True)
    (first,) = torch.autograd.grad(layers[1](x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_model_is_loaded_with_them():
    model = load_model(compose_config(tiny_words()).model, torch.device("cpu"))
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Linear)}
    assert kinds == {OneDnnLinear}


def test_torch_without_onednn_multiplies_by_itself(monkeypatch):
    def missing(*_: object) -> None:
        raise RuntimeError("mkldnn: no such operator")

    monkeypatch.setattr("linear._product", missing)
    monkeypatch.setattr("linear._is_there", linear._is_there.__wrapped__)
    assert type(use_onednn(nn.Sequential(nn.Linear(2, 2)))[0]) is nn.Linear


def test_layers_of_another_kind_stay_as_they_are():
    class Own(nn.Linear):
        pass

    model = use_onednn(nn.ModuleList([Own(2, 2), nn.Linear(2, 2), nn.Embedding(2, 2)]))
    assert [type(layer) for layer in model] == [Own, OneDnnLinear, nn.Embedding]
