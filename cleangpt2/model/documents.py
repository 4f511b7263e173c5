"""Attention that stops at the borders of documents packed into one row.

GPT-2 was trained on rows of documents side by side, with an end-of-text token between, and let a
token attend to all tokens before it, those of other documents among them. Where a token shall see
its own document alone, a packed row is to give what each document gives by itself: attention gets
a block-diagonal mask (as in Krell et al., 2021, "Efficient Sequence Packing without
Cross-contamination"), and positions count from 0 in each document.

Letters: B sequences, T tokens.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def document_numbers(ids: Int[Tensor, "B T"], eos_id: int) -> Int[Tensor, "B T"]:
    """The number of each token's document in its row; a document begins with `eos_id`.

    The end-of-text token between two documents is the first token of the second one, and what the
    last token of the first one has to predict: no target of packed text is lost or wrong.

    >>> document_numbers(torch.tensor([[5, 6, 0, 7, 8, 0, 9]]), eos_id=0).tolist()
    [[0, 0, 1, 1, 1, 2, 2]]
    """
    return (ids == eos_id).cumsum(1)


def document_starts(documents: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Where in its row each token's document begins; neighbours of one number are one document.

    >>> document_starts(torch.tensor([[0, 0, 1, 1, 1, 2, 2]])).tolist()
    [[0, 0, 2, 2, 2, 5, 5]]
    """
    places = torch.arange(documents.size(1), device=documents.device).expand_as(documents)
    is_first = documents.diff(dim=1, prepend=documents[:, :1] - 1) != 0
    return torch.where(is_first, places, 0).cummax(1).values


def document_positions(documents: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """The place of each token in its document, from 0; the first one may have begun before.

    >>> document_positions(torch.tensor([[0, 0, 1, 1, 1, 2, 2]])).tolist()
    [[0, 1, 0, 1, 2, 0, 1]]
    """
    return torch.arange(documents.size(1), device=documents.device) - document_starts(documents)


def document_mask(documents: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """True where a query (third axis) may see a key: in its own document and not after it.

    >>> document_mask(torch.tensor([[0, 0, 1]]))[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    keys = torch.arange(documents.size(1), device=documents.device)
    return (document_starts(documents)[:, :, None] <= keys).tril_()[:, None]
