"""The second half of a block: two linear layers on each token alone.

Letters: B batch, T tokens, C = n_embd.
"""

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.linear import Linear

# Modules, not functions, so that `print(model)` names the nonlinearity.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "gelu_fast": partial(nn.GELU, approximate="tanh"),
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Module):
    """Two linear layers with GELU between, on each token alone."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, config.mlp_width)
        self.c_proj = Linear(config.mlp_width, config.n_embd)
        self.act = ACTIVATIONS[config.activation_function]()
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """What the MLP adds to the residual stream."""
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))
