"""transformers' GPT-2 with the weights of ours.

The names and the transposition of Conv1D are written here once more, on purpose: a mistake in
``cleangpt2/model/pretrained.py`` must not hide itself.
"""

import torch
from torch import nn

from cleangpt2.model.gpt2 import GPT2
from tests.helpers import require

CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def twin(model: GPT2, *, attention: str = "eager") -> nn.Module:
    """A ``GPT2LMHeadModel`` that holds copies of the weights, in the same mode as `model`.

    Args:
        model: Ours.
        attention: transformers' implementation of it, ``eager`` or ``sdpa``.
    """
    transformers = require("transformers")
    config = transformers.GPT2Config(**model.config.to_dict(), attn_implementation=attention)
    with torch.device("meta"):
        other = transformers.GPT2LMHeadModel(config)
    weights = {
        f"transformer.{name}": (tensor.t() if name.endswith(CONV1D) else tensor).clone()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    weights["lm_head.weight"] = model.output_weight.detach().clone()
    other.load_state_dict(weights, assign=True)
    other.tie_weights()
    return other.train(model.training)
