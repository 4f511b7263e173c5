"""The linear layer, on the quickest of PyTorch's kernels that gives the same result.

On a CPU PyTorch hands float32 products to MKL, which on some machines (AMD's, measured) is slow:
for one or a few rows, as in writing text, it reads the weights far below what the memory can give,
and for the many rows of training it does 10 to 20 % less arithmetic a second than oneDNN, the other
library inside PyTorch. ``benchmarks/generate.py`` and ``benchmarks/train.py`` measure what that
changes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# Inductor's own way to oneDNN; absent from builds without that library, such as those for Metal.
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def linear(
    x: Float[Tensor, "*batch K"], weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None
) -> Float[Tensor, "*batch N"]:
    """``x @ weight.T + bias``, as ``F.linear``, gradients included.

    For other types and devices, under autocast and while compiling it is ``F.linear`` itself.
    """
    if (
        _ONEDNN is None
        or weight.dtype != torch.float32
        or x.dtype != torch.float32
        or weight.device.type != "cpu"
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or not torch.backends.mkldnn.enabled
    ):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Product.apply(x, weight, bias)
    return _ONEDNN(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """The same product with gradients, which oneDNN's call has not.

    With y = x W^T + b and g the gradient in y, the gradients are g W in x, g^T x in W, and the sum
    of g's rows in b. The first has the form of the product itself. The second sums over rows, where
    MKL is no slower.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The product."""
        return _ONEDNN(x, weight, bias, "none", [], "")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        """Keep what the gradients need, as ``F.linear`` does: a frozen weight costs no input."""
        x, weight, _ = inputs
        x_wanted, weight_wanted, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if weight_wanted else None, weight if x_wanted else None)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that are asked for; made of operations that have gradients themselves."""
        x, weight = ctx.saved_tensors
        g = upstream[0]
        rows = g.reshape(-1, g.size(-1))
        return (
            None if weight is None else linear(g, weight.t(), None),
            None if x is None else rows.t() @ x.reshape(-1, x.size(-1)),
            rows.sum(dim=0) if ctx.needs_input_grad[2] else None,
        )


class Linear(nn.Linear):
    """``nn.Linear`` through `linear`: the same parameters and the same result."""

    def forward(self, input: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch N"]:
        """The product with the weights, plus the bias."""
        return linear(input, self.weight, self.bias)
