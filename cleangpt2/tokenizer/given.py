"""What callers give as ids and names, and why it is refused where it is neither."""

import reprlib
from collections.abc import Collection, Iterable
from typing import SupportsIndex

import numpy as np

from cleangpt2.errors import TokenizerError, did_you_mean
from cleangpt2.tokenizer.vocabulary import Vocabulary


def as_list(ids: Iterable[SupportsIndex]) -> list:
    """The ids as plain integers, also those of an array or a tensor.

    >>> as_list(np.array([5, 7]))
    [5, 7]

    Raises:
        TokenizerError: One number, or nothing of the kind.
    """
    if isinstance(ids, list):
        return ids
    tolist = getattr(ids, "tolist", None)
    try:
        return list(ids if tolist is None else tolist())
    except TypeError:  # one number, also that of an array without dimensions
        raise TokenizerError(
            f"ids must be one flat list of whole numbers, like [5], not {reprlib.repr(ids)}"
        ) from None


def refusal_of(ids: list, vocabulary: Vocabulary) -> TokenizerError:
    """Why these ids, which cannot be decoded, are none."""
    known = {*vocabulary.ids.values(), *vocabulary.special.values()}
    wrong = next(i for i in ids if not _is_number(i) or i not in known)
    if not _is_number(wrong):
        kind = type(wrong).__name__
        return TokenizerError(f"ids must be one flat list of whole numbers, not of {kind}")
    return TokenizerError(
        f"id {wrong} is not in this vocabulary, whose ids go from 0 to {vocabulary.size - 1}; "
        "was the text encoded with another tokenizer?"
    )


def known_special(names: Collection[str], vocabulary: Vocabulary) -> set[str]:
    """``allowed_special`` as a set, if all of them are special tokens.

    Raises:
        TokenizerError: One of them is not, or this is one text.
    """
    if isinstance(names, str):
        raise TokenizerError(f"allowed_special takes a set of names: {{{names!r}}}")
    for name in names:
        if name not in vocabulary.special:
            known = ", ".join(vocabulary.special) or "none"
            raise TokenizerError(
                f"{name!r} is no special token of this vocabulary, which has {known}."
                f"{did_you_mean(name, vocabulary.special)}"
            )
    return set(names)


def _is_number(i: object) -> bool:
    return isinstance(i, int | np.integer) and not isinstance(i, bool)
