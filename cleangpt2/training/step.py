"""The gradient of one optimiser step, in as many parts as memory asks for.

The loss is the mean over all target tokens of the step and not a mean of means, so neither the
number of parts and processes nor how many targets fall into each changes it.

Letters: B sequences of one part, T tokens.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cleangpt2.model.documents import document_numbers
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.logprobs import linear_cross_entropy
from cleangpt2.training.parallel import Replica

IGNORED = -100
"""A target that is not predicted."""

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def accumulate(
    model: GPT2 | Replica,
    parts: Sequence[tuple[Tensor, ...]],
    *,
    precision: str,
    scaler: torch.amp.GradScaler,
    border: int | None = None,
) -> float:
    """Add the gradient of the mean loss of all `parts` to the parameters; return the loss in nats.

    Args:
        model: If several processes train it, its `Replica`; loss and gradient are then of the parts
            of all of them.
        parts: Inputs and targets of each micro-batch, both (B, T), and where its rows hold several
            documents, the number of each token's document.
        scaler: Multiplies the gradients, not the loss returned; disabled but for fp16.
        border: The end-of-text token, if no token is to see past the one that begins its document.
    """
    replica = model if isinstance(model, Replica) else Replica(model)
    total = replica.runtime.sum  # over the processes
    counted = max(1, total(sum(int((part[1] != IGNORED).sum()) for part in parts)))
    losses = []
    for number, part in enumerate(parts, start=1):
        with replica.exchanging(number == len(parts)):
            loss = replica(summed_loss, *part, precision=precision, border=border)
            loss = loss / counted
            replica.backward(scaler.scale(loss))
        losses.append(loss.detach())
    return total(torch.stack(losses).sum().item())  # read once: a GPU runs on meanwhile


def summed_loss(
    model: GPT2,
    inputs: Int[Tensor, "B T"],
    targets: Int[Tensor, "B T"],
    documents: Int[Tensor, "B T"] | None = None,
    *,
    precision: str = "fp32",
    border: int | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy in nats, summed over `targets`, the tokens that follow `inputs`.

    Every target counts with a `border` too: the end-of-text token between two documents is
    predicted by the first one, and the second one's first word by that end-of-text token.

    Args:
        documents: The number of each token's document; a token sees its own alone.
        border: The token that begins a document, where nobody has numbered them.
    """
    inputs, targets = inputs.to(model.device), targets.to(model.device)
    if documents is not None:
        documents = documents.to(model.device)
    elif border is not None:
        documents = document_numbers(inputs, border)
    half = HALVES.get(precision)
    with torch.autocast(model.device.type, half, enabled=half is not None):
        hidden = model.hidden(inputs, documents=documents).flatten(0, 1)
        return linear_cross_entropy(
            hidden, model.output_weight, targets.flatten(), ignore=IGNORED, reduction="sum"
        )
