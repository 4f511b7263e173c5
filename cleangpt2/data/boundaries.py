"""Which document each token of a packed window belongs to, for attention that stays inside one.

Packed windows hold several documents. GPT-2 lets a token attend to all tokens before it, those of
other documents among them; these functions say what a model needs to part them.

Letters: B sequences, T tokens.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def document_numbers(ids: Int[Tensor, "B T"], eos_id: int) -> Int[Tensor, "B T"]:
    """The number of each token's document in its window; a document begins with `eos_id`.

    >>> document_numbers(torch.tensor([[5, 6, 0, 7, 8, 0, 9]]), eos_id=0).tolist()
    [[0, 0, 1, 1, 1, 2, 2]]
    """
    return (ids == eos_id).cumsum(1)


def document_positions(documents: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """The place of each token in its document, from 0; the first one may have begun before.

    >>> document_positions(torch.tensor([[0, 0, 1, 1, 1, 2, 2]])).tolist()
    [[0, 1, 0, 1, 2, 0, 1]]
    """
    places = torch.arange(documents.size(1), device=documents.device).expand_as(documents)
    is_first = documents.diff(dim=1, prepend=documents[:, :1] - 1) != 0
    return places - torch.where(is_first, places, 0).cummax(1).values


def document_mask(documents: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """True where a query (third axis) may see a key: in its own document and not after it.

    >>> document_mask(torch.tensor([[0, 0, 1]]))[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    same = documents[:, :, None] == documents[:, None, :]
    return same.tril()[:, None]
