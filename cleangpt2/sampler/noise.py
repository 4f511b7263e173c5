"""The random numbers that pick tokens, counter-based.

The number for a token depends on (seed, prompt ids, sample, step) alone. A sample is therefore
the same alone, in any batch, streamed or taken up again, and the samples of different prompts are
independent.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def generator(seed: int, prompt: Sequence[int], sample: int) -> np.random.Generator:
    """The source of one sample's numbers: its n-th ``random()``, uniform in [0, 1), is step n's.

    Philox (Salmon et al., 2011), keyed by a hash of seed, prompt and sample; it counts the steps.

    Args:
        seed: 0 to 2**64 - 1.
        sample: Number of this sample among the samples of its prompt.

    >>> at_once, one_by_one = generator(1, [5, 6], 0), generator(1, [5, 6], 0)
    >>> at_once.random(3).tolist() == [one_by_one.random() for _ in range(3)]
    True
    """
    # Fixed widths and a length, so that no two (seed, sample, prompt) give the same bytes.
    head = np.array([seed, sample, len(prompt)], dtype="<u8")
    digest = hashlib.blake2b(
        head.tobytes() + np.array(prompt, dtype="<u8").tobytes(),
        digest_size=16,
        person=b"cleangpt2",
    )
    key = np.frombuffer(digest.digest(), dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))
