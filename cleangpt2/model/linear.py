"""The linear layer, on the quickest of PyTorch's kernels that gives the same result.

Writing one token reads every weight once, so its speed is that of reading them. On a CPU
PyTorch hands float32 products to MKL, which for one or a few rows reads far below what the memory
can give on some machines (AMD's, measured); oneDNN, the other library inside PyTorch, does not.
``benchmarks/generate.py`` measures the difference.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# Inductor's own way to oneDNN; absent from builds without that library, such as those for Metal.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def linear(
    x: Float[Tensor, "*batch K"], weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None
) -> Float[Tensor, "*batch N"]:
    """``x @ weight.T + bias``, as ``F.linear``.

    Where a gradient may be asked for, under autocast and while compiling it is ``F.linear`` itself.
    """
    if (
        _ONEDNN is None
        or torch.is_grad_enabled()
        or weight.dtype != torch.float32
        or x.dtype != torch.float32
        or weight.device.type != "cpu"
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or not torch.backends.mkldnn.enabled
    ):
        return F.linear(x, weight, bias)
    return _ONEDNN(x, weight, bias, "none", [], "")


class Linear(nn.Linear):
    """``nn.Linear`` through `linear`: the same parameters and the same result."""

    def forward(self, input: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch N"]:
        """The product with the weights, plus the bias."""
        return linear(input, self.weight, self.bias)
