"""How well a model predicts a text, in units that can be compared.

A loss per token depends on the vocabulary; bits per byte do not.
"""

import math


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Total loss in bits for each byte of the UTF-8 text.

    >>> bits_per_byte(nats=8 * math.log(2), n_bytes=4)
    2.0
    """
    return nats / (n_bytes * math.log(2))


def perplexity(nats: float, n: int) -> float:
    """``exp(nats / n)``: among how many equally likely tokens the model chooses, on average.

    Only figures of one vocabulary compare. Infinite where the loss is too large for a float.

    Args:
        nats: Total loss of `n` tokens (or of `n` words, for a perplexity by the word).

    >>> round(perplexity(nats=3 * math.log(50257), n=3))
    50257
    >>> perplexity(nats=1e6, n=1)
    inf
    """
    try:
        return math.exp(nats / n)
    except OverflowError:
        return math.inf
