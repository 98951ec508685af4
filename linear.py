"""Products of a model's linear layers that are not torch's own: by oneDNN on the CPU, in float32 for the head.

torch multiplies float32 by its BLAS. MKL, the one that it is built with on x86, leaves half of what an AMD processor
with AVX-512 can do unused. oneDNN, which torch carries too, uses it, and is no slower with AVX2 (docs/speed.md).

Shape suffixes: K = inputs, N = outputs of a layer; `...` any number of leading dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

Model = TypeVar("Model", bound=nn.Module)


def _product(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """x [..., K] times the weight's transpose, plus the bias: [..., N]. What compiled models call."""
    return torch.ops.mkldnn._linear_pointwise(x, weight_NK, bias_N, "none", [], "")


class _WithGradient(torch.autograd.Function):
    """The same with a gradient of x alone: the layer's own parameters ask for none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight_NK)
        return _product(x, weight_NK, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight_NK,) = ctx.saved_tensors
        return _product(gradient, weight_NK.t()), None, None


class OneDnnLinear(nn.Linear):
    """A linear layer that oneDNN multiplies, where it is float32 on the CPU and its parameters ask for no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., K] -> [..., N]."""
        weight, bias = self.weight, self.bias
        is_trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        if is_trained or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32:
            return super().forward(x)
        if x.requires_grad and torch.is_grad_enabled():
            return _WithGradient.apply(x, weight, bias)
        return _product(x, weight, bias)


@cache
def _is_there() -> bool:
    """Whether this torch would take MKL, and can call oneDNN as above."""
    one = torch.ones(1, 1)
    try:
        return torch.backends.mkl.is_available() and torch.equal(_product(one, one), one)
    except (AttributeError, RuntimeError):
        return False


def use_onednn(model: Model) -> Model:
    """Let oneDNN multiply a model's linear layers, where torch would take MKL; weights stay where they are."""
    if _is_there():
        for module in model.modules():
            if type(module) is nn.Linear:  # a subclass may compute something else
                module.__class__ = OneDnnLinear
    return model


PART = 2**26
"""Entries of a weight that are float32 at a time: 256 MiB."""


class _InFloat32(torch.autograd.Function):
    """A product in float32 of what may be less; a gradient of x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight_NK)
        ctx.dtype, x = x.dtype, x.float()
        found = torch.cat([linear(x, part.float()) for part in _parts(weight_NK)], -1)
        return found if bias_N is None else found + bias_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        parts = _parts(ctx.saved_tensors[0])
        pairs = zip(gradient.split([len(part) for part in parts], -1), parts, strict=True)
        return sum(piece @ part.float() for piece, part in pairs).to(ctx.dtype), None, None


def _parts(weight_NK: Tensor) -> tuple[Tensor, ...]:
    return weight_NK.split(max(1, PART // weight_NK.shape[1]))


@contextmanager
def in_float32(layer: nn.Module | None) -> Iterator[None]:
    """Inside the block a linear layer of bfloat16 or float16 gives float32, of which none is rounded away.

    A twentieth of a bfloat16 model's answers would else be ties for the first place.
    """
    if not isinstance(layer, nn.Linear) or layer.weight.dtype not in (torch.bfloat16, torch.float16):
        yield
        return
    weight, bias, head = layer.weight, layer.bias, cast(Any, layer)
    before = head.__dict__.get("forward")  # accelerate sets one, which brings x to the weight's device
    head.forward = lambda x: _InFloat32.apply(x.to(weight.device), weight, bias)
    try:
        yield
    finally:
        del head.forward
        if before is not None:
            head.forward = before
