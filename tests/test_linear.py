"""Products of linear layers that are not torch's own: values and gradients as in float64, whatever the layout."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

import linear
from config.compose import compose_config
from linear import OneDnnLinear, in_float32, use_onednn
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


@pytest.mark.parametrize("part", [linear.PART, 300 * 16])
def test_a_head_of_less_precision_gives_float32(layers, monkeypatch, part):
    monkeypatch.setattr(linear, "PART", part)
    head = layers[0].float().bfloat16()
    x = torch.randn(1, 5, 300, dtype=torch.bfloat16, requires_grad=True)
    with in_float32(head):
        found = head(x)
    wanted = nn.functional.linear(x.double(), head.weight.double(), head.bias.double())
    assert found.dtype == torch.float32 and difference(found.detach(), wanted.detach()) < NEAR
    assert head(x).dtype == torch.bfloat16, "outside the block"

    weights = torch.randn(1, 5, 70)
    (gradient,) = torch.autograd.grad((found * weights).sum(), x)
    (wanted,) = torch.autograd.grad((wanted * weights.double()).sum(), x)
    assert gradient.dtype == torch.bfloat16 and difference(gradient, wanted) < 2**-8


def test_a_float32_head_stays_as_it_is(layers):
    x = torch.randn(2, 300)
    wanted = layers[1](x)
    with in_float32(layers[1]):
        assert torch.equal(layers[1](x), wanted) and "forward" not in vars(layers[1])


def test_a_forward_that_somebody_else_has_set_comes_back(layers):
    head = layers[0].bfloat16()
    head.forward = theirs = lambda x: x  # as accelerate does for a model that lies on several devices
    with in_float32(head):
        assert head(torch.ones(1, 300, dtype=torch.bfloat16)).dtype == torch.float32
    assert head.forward is theirs
