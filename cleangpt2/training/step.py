"""The gradient of one optimiser step, in as many parts as memory asks for.

The loss is the mean over all target tokens of the step and not a mean of means, so neither the
number of parts nor how many targets fall into each changes it.

Letters: B sequences of one part, T tokens.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.logprobs import linear_cross_entropy

IGNORED = -100
"""A target that is not predicted."""

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def accumulate(
    model: GPT2,
    parts: Sequence[tuple[Tensor, Tensor]],
    *,
    precision: str,
    scaler: torch.amp.GradScaler,
) -> float:
    """Add the gradient of the mean loss of all `parts` to the parameters; return the loss in nats.

    Args:
        parts: Inputs and targets of each micro-batch, both (B, T).
        scaler: Multiplies the gradients, not the loss returned; disabled but for fp16.
    """
    counted = max(1, sum(int((targets != IGNORED).sum()) for _, targets in parts))
    losses = []
    for inputs, targets in parts:
        loss = summed_loss(model, inputs, targets, precision=precision) / counted
        scaler.scale(loss).backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum().item()  # read once: a GPU runs on meanwhile


def summed_loss(
    model: GPT2, inputs: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], *, precision: str = "fp32"
) -> Float[Tensor, ""]:
    """Cross-entropy in nats, summed over `targets`, the tokens that follow `inputs`."""
    inputs, targets = inputs.to(model.device), targets.to(model.device)
    half = HALVES.get(precision)
    with torch.autocast(model.device.type, half, enabled=half is not None):
        hidden = model.hidden(inputs).flatten(0, 1)
        return linear_cross_entropy(
            hidden, model.output_weight, targets.flatten(), ignore=IGNORED, reduction="sum"
        )
