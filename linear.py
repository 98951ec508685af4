"""Linear layers of a model on the CPU, in float32, multiplied by oneDNN.

torch multiplies float32 by its BLAS. MKL, the one that it is built with on x86, leaves half of what an AMD processor
with AVX-512 can do unused. oneDNN, which torch carries too, uses it, and is no slower with AVX2 (docs/speed.md).

Shape suffixes: K = inputs, N = outputs of a layer; `...` any number of leading dimensions.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Model = TypeVar("Model", bound=nn.Module)


def _product(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """x [..., K] times the weight's transpose, plus the bias: [..., N]. What compiled models call."""
    return torch.ops.mkldnn._linear_pointwise(x, weight_NK, bias_N, "none", [], "")


class _Product(torch.autograd.Function):
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
            return _Product.apply(x, weight, bias)
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
