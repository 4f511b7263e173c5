"""Pure functions on logits that look at what each row says so far.

Where ``filters`` judges a token by its probability alone, these forbid, discourage or force it
because of its past. A forbidden token has logit -inf. The order in which they work together is
``pipeline``'s. Letters: B rows, V vocabulary.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Sequences = Sequence[Sequence[int]]
"""All ids of each row so far; they may be of different lengths."""


def logit_bias(
    logits: Float[Tensor, "B V"], bias: Iterable[tuple[int, float]]
) -> Float[Tensor, "B V"]:
    """Add to the logits of some ids, as OpenAI's API does; -inf forbids one.

    >>> logit_bias(torch.tensor([[1.0, 2.0, 3.0]]), [(0, 1.5), (2, -torch.inf)])
    tensor([[2.5000, 2.0000,   -inf]])
    """
    ids, values = zip(*bias, strict=True)
    biased = logits.clone()
    biased[:, list(ids)] += torch.tensor(values, dtype=logits.dtype, device=logits.device)
    return biased


def repetition_penalty(
    logits: Float[Tensor, "B V"], sequences: Sequences, penalty: float
) -> Float[Tensor, "B V"]:
    """Make tokens of prompt and response less likely (Keskar et al., 2019, CTRL, section 4.1).

    The paper divides the logit. That raises a negative one, so it is multiplied instead, as
    everyone does since.

    >>> repetition_penalty(torch.tensor([[1.0, -2.0, 3.0]]), [[1, 2, 2]], 2.0)
    tensor([[ 1.0000, -4.0000,  1.5000]])
    """
    longest = max(map(len, sequences))
    # A shorter row names its last id once more: a token is punished once however often it stands.
    rows = [[*ids, *[ids[-1]] * (longest - len(ids))] for ids in sequences]
    seen = torch.tensor(rows, device=logits.device)
    old = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(old < 0, old * penalty, old / penalty))


def count_penalties(
    logits: Float[Tensor, "B V"], responses: Sequences, frequency: float, presence: float
) -> Float[Tensor, "B V"]:
    """Take `frequency` for each time a token stands in the response, and `presence` once.

    OpenAI's API (reference, "frequency and presence penalties"):
    logit - count * frequency - (count > 0) * presence. The prompt does not count.

    >>> count_penalties(torch.zeros(1, 3), [[1, 2, 2]], frequency=0.5, presence=0.25)
    tensor([[ 0.0000, -0.7500, -1.2500]])
    """
    punished = logits.clone()
    for row, response in enumerate(responses):
        counts = Counter(response)
        times = torch.tensor(list(counts.values()), dtype=logits.dtype, device=logits.device)
        punished[row, list(counts)] -= frequency * times + presence
    return punished


def no_repeat_ngrams(
    logits: Float[Tensor, "B V"], sequences: Sequences, n: int
) -> Float[Tensor, "B V"]:
    """Forbid tokens that would complete n in a row that the sequence has already.

    Paulus et al. (2018), section 2.5, for summaries with n = 3.

    >>> no_repeat_ngrams(torch.zeros(1, 4), [[1, 2, 3, 1, 2]], 3)  # 1 2 3 stands there already
    tensor([[0., 0., 0., -inf]])
    """
    return _forbid(logits, [_repeats(ids, n) for ids in sequences])


def _repeats(ids: Sequence[int], n: int) -> list[int]:
    """What followed each earlier place of the last n - 1 ids."""
    if len(ids) < n:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(ids), n)
    begun = np.asarray(ids[len(ids) - n + 1 :])
    return windows[(windows[:, :-1] == begun).all(axis=1), -1].tolist()


def banned(
    logits: Float[Tensor, "B V"],
    sequences: Sequences,
    sequences_banned: tuple[tuple[int, ...], ...],
) -> Float[Tensor, "B V"]:
    """Forbid the last token of a banned sequence where the tokens before it are said.

    >>> banned(torch.zeros(2, 4), [[1, 2], [2, 2]], ((3,), (1, 2, 0)))
    tensor([[-inf, 0., 0., -inf],
            [0., 0., 0., -inf]])
    """
    lasts = _lasts(sequences_banned)
    lengths = {len(begun) for begun in lasts}
    return _forbid(
        logits,
        [
            [
                id
                for n in lengths
                if n <= len(ids)
                for id in lasts.get(tuple(ids[len(ids) - n :]), ())
            ]
            for ids in sequences
        ],
    )


@lru_cache(maxsize=16)
def _lasts(sequences: tuple[tuple[int, ...], ...]) -> dict[tuple[int, ...], list[int]]:
    """The ids that complete a sequence, by what has to stand before them.

    Thousands of bans (every spelling of many words) then cost a row one look-up a length.
    """
    lasts: dict[tuple[int, ...], list[int]] = {}
    for *begun, last in sequences:
        lasts.setdefault(tuple(begun), []).append(last)
    return lasts


def too_short(
    logits: Float[Tensor, "B V"], responses: Sequences, least: int, stop_ids: Iterable[int]
) -> Float[Tensor, "B V"]:
    """Forbid the stop tokens in rows whose response has fewer than `least` tokens.

    >>> too_short(torch.zeros(2, 3), [[1], [1, 0]], least=2, stop_ids=[2])
    tensor([[0., 0., -inf],
            [0., 0., 0.]])
    """
    stops = list(stop_ids)
    return _forbid(logits, [stops if len(response) < least else [] for response in responses])


def forced(logits: Float[Tensor, "B V"], ids: Sequence[int | None]) -> Float[Tensor, "B V"]:
    """Leave a row its forced token alone, at logit 0 even if it was forbidden; None forces none.

    >>> forced(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [None, 0])
    tensor([[1., 2.],
            [0., -inf]])
    """
    result = logits.clone()
    for row, id in enumerate(ids):
        if id is not None:
            result[row] = -torch.inf
            result[row, id] = 0.0
    return result


def _forbid(logits: Float[Tensor, "B V"], ids: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
    """Forbid each row its own ids."""
    rows = [row for row, forbidden in enumerate(ids) for _ in forbidden]
    if not rows:
        return logits
    result = logits.clone()
    result[rows, [id for forbidden in ids for id in forbidden]] = -torch.inf
    return result
