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
