"""Does the data teach the model to stop?

A model ends an answer by a token, and says it only if it was a target. It is lost where padding is
masked by ``ids == pad`` and the pad token is the end token, as GPT-2 invites (huggingface/trl#1623,
and many before it): training looks well, and the model never stops. So before a run the end tokens
among the targets are counted.
"""

from dataclasses import dataclass

import numpy as np

from cleangpt2.errors import DataError
from cleangpt2.sft.examples import Examples
from cleangpt2.tokenizer.chat import Encoded


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """How the answers of the examples end."""

    examples: int
    trained: int
    """Examples whose last target is the end token."""
    cut: int
    """Those without it because they were too long."""
    masked: int
    """Those that have it after an answer, where it is no target."""

    @property
    def without(self) -> int:
        """Examples that have no end token behind their last target, though nothing was cut."""
        return self.examples - self.trained - self.cut - self.masked

    def __str__(self) -> str:
        """In words.

        >>> print(Audit(examples=9, trained=7, cut=2, masked=0))
        7 of 9 answers end with the token that stops (78%), 2 were cut before it
        """
        share = f"{self.trained / self.examples:.0%}"
        parts = [
            f"{self.trained:,} of {self.examples:,} answers end with the token that stops ({share})"
        ]
        for count, said in (
            (self.cut, "were cut before it"),
            (self.masked, "have it and do not learn it"),
            (self.without, "never had it"),
        ):
            if count:
                parts.append(f"{count:,} {said}")
        return ", ".join(parts)


def audit(examples: Examples, end_id: int) -> Audit:
    """Count how the answers end.

    Args:
        examples: What will be learned.
        end_id: The token that ends an answer (``ChatTemplate.end_id``).

    Raises:
        DataError: Masking has taken end tokens away, or there is not one to learn.
    """
    masked = [_is_masked(row, end_id) for row in examples.rows]
    ends = [_last_target(row) == end_id for row in examples.rows]
    rows = list(zip(ends, masked, examples.cut, strict=True))
    found = Audit(
        examples=len(examples),
        trained=sum(end and not lost for end, lost, _ in rows),
        masked=sum(masked),
        cut=sum(cut and not end and not lost for end, lost, cut in rows),
    )
    if found.masked:
        raise DataError(
            f"in {found.masked:,} of {found.examples:,} examples the token that ends an answer, "
            f"{end_id}, follows it and is no target, so the model would not learn to stop: mask "
            "padding by its length and not by its id, and mark the end of an answer as learned"
        )
    if not found.trained:
        raise DataError(
            f"not one of {found.examples:,} examples ends with the token that stops, {end_id} "
            f"({found.cut:,} were cut before it): raise context, or choose another template"
        )
    return found


def _last_target(row: Encoded) -> int:
    return int(row.ids[np.flatnonzero(row.mask)[-1]])


def _is_masked(row: Encoded, end_id: int) -> bool:
    """Whether an end token that is no target follows a target that is no end token."""
    after = ~row.mask[1:] & (row.ids[1:] == end_id)
    before = row.mask[:-1] & (row.ids[:-1] != end_id)
    return bool((after & before).any())
