"""Encoded conversations made ready to be learned from: what is a target, and what has to be cut."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cleangpt2.errors import DataError
from cleangpt2.tokenizer.chat import Encoded


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """What a run learns from, and what had to be left away."""

    rows: tuple[Encoded, ...]
    """At most T + 1 ids each; the mask is True where a token is a target. The first never is."""
    numbers: tuple[int, ...]
    """Which of the conversations that were given each row is, counted from 0."""
    cut: tuple[bool, ...]
    """Whether a row lost targets because the example was too long."""
    lost: tuple[int, ...]
    """The numbers of those that have no target left, and are left out."""
    context: int
    """The T they were cut for."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> list[int]:
        """Inputs that each example needs: all tokens before its last target."""
        return [int(np.flatnonzero(row.mask)[-1]) for row in self.rows]

    @property
    def targets(self) -> int:
        """Tokens that one epoch learns."""
        return sum(int(row.mask.sum()) for row in self.rows)

    def fingerprint(self) -> str:
        """What tells these examples from any others, for ``config.json``."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(row.ids.astype("<u4").tobytes() + row.mask.tobytes())
        return f"{len(self)} examples, {digest.hexdigest()[:16]}"

    def __str__(self) -> str:
        """How many, and what truncation did to them.

        >>> encoded = Encoded(np.arange(9, dtype=np.int32), np.arange(9) > 3)
        >>> print(fit([encoded, encoded], context=6))
        2 examples, 6 tokens to learn; 2 longer than 6 tokens and cut, so that their end is missing
        """
        parts = [f"{len(self):,} examples, {self.targets:,} tokens to learn"]
        if cut := sum(self.cut):
            parts.append(
                f"{cut:,} longer than {self.context:,} tokens and cut, so that their end is missing"
            )
        if self.lost:
            parts.append(f"{len(self.lost):,} left out, of whose answers nothing is left")
        return "; ".join(parts)


def fit(encoded: Sequence[Encoded], *, context: int, train_on: str = "completion") -> Examples:
    """Cut every example to `context` inputs and as many targets.

    Args:
        encoded: Conversations, as ``ChatTemplate.encode_batch`` gives them.
        context: T. An example of T + 1 ids has T inputs and T targets.
        train_on: "completion", or "all" to learn every token but the first.

    Raises:
        DataError: Nothing to learn is left.
    """
    rows, numbers, cut, lost = [], [], [], []
    for number, example in enumerate(encoded):
        mask = example.mask.copy() if train_on == "completion" else np.ones_like(example.mask)
        mask[:1] = False  # nothing comes before it that could predict it
        kept = Encoded(example.ids[: context + 1], mask[: context + 1])
        if not kept.mask.any():
            lost.append(number)
            continue
        rows.append(kept)
        numbers.append(number)
        cut.append(bool(mask[context + 1 :].any()))
    if not rows:
        raise DataError(
            f"none of the {len(encoded)} examples has an answer within {context} tokens: raise "
            "context, or give examples with shorter prompts"
        )
    return Examples(tuple(rows), tuple(numbers), tuple(cut), tuple(lost), context)
