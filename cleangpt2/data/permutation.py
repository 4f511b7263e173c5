"""A random order of any number of things, without a list of them.

A Feistel network (Luby & Rackoff, 1988) shuffles the numbers of an even count of bits: each round
mixes one half with a hash of the other, which can be undone, so no two numbers meet. What falls
outside the range goes through again until it is inside, "cycle walking" (Black & Rogaway, 2002);
at most four times as many numbers are possible as there are things, so four passes do on average.
Of a handful of things not every order is equally likely; of more, none is told from the others.
"""

import numpy as np
from jaxtyping import Int64

_ROUNDS = 8
_PURPOSE = 1  # sets these numbers apart from others with the same seed and epoch
_SPLITMIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def permute(
    places: Int64[np.ndarray, " N"], n: int, seed: int, epoch: int
) -> Int64[np.ndarray, " N"]:
    """Where a random order of ``range(n)`` puts each of `places`.

    >>> permute(np.arange(8), 8, 1, 0).tolist()
    [3, 2, 4, 0, 7, 1, 5, 6]

    Args:
        places: Numbers from 0 to n - 1.
        seed: Another seed or epoch is another order.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    key = np.random.SeedSequence(seed, spawn_key=(epoch, _PURPOSE))
    keys = key.generate_state(_ROUNDS, np.uint64)
    walking = places.astype(np.uint64)
    outside = np.ones(len(places), bool)
    while outside.any():
        walking[outside] = _feistel(walking[outside], half, keys)
        outside = walking >= n
    return walking.astype(np.int64)


def _feistel(numbers: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    """One pass over numbers of twice `half` bits."""
    mask = np.uint64((1 << half) - 1)
    left, right = numbers >> np.uint64(half), numbers & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return left << np.uint64(half) | right


def _mix(bits: np.ndarray) -> np.ndarray:
    """Stir 64 bits (the end of SplitMix64; Steele, Lea & Flood, 2014)."""
    for shift, factor in zip((30, 27), _SPLITMIX, strict=True):
        bits = (bits ^ (bits >> np.uint64(shift))) * factor  # modulo 2**64
    return bits ^ (bits >> np.uint64(31))
