"""Texts that are never written, in whatever tokens.

A list of banned token sequences (`SamplingConfig.banned`) leaves holes: with " time" forbidden a
model still writes " ti" and "me", or " times". Here every token is forbidden that would complete a
banned text, so the response cannot contain it: not across tokens, not inside a longer word ("cat"
goes with "category"), not half in the prompt. Capitals and spaces count: "cat" leaves "Cat".
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cleangpt2.completion.prefixes import Prefixes
from cleangpt2.completion.prompts import Prompt
from cleangpt2.tokenizer import Tokenizer


class Bans:
    """A `Filter` that forbids what would complete a banned text."""

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: Tokenizer,
        prefixes: Prefixes,
        prompts: Callable[[], Iterable[Prompt]],
        stop_ids: Collection[int] = (),
    ) -> None:
        """Make the filter of one generation.

        Args:
            prompts: Gives the prompt of each row at work, in their order.
            stop_ids: Tokens that end a text and do not belong to it.
        """
        self._bans = [text.encode() for text in texts]
        self._tokenizer = tokenizer
        self._prefixes = prefixes
        self._prompts = prompts
        self._stop_ids = frozenset(stop_ids)
        self._inside: dict[bytes, Tensor] = {}

    def __repr__(self) -> str:
        return "ban"  # what errors call it

    def __call__(
        self, logits: Float[Tensor, "B V"], sequences: Sequence[Sequence[int]]
    ) -> Float[Tensor, "B V"]:
        """Forbid, row by row, the tokens after which a banned text would stand there."""
        banned = logits.clone()
        before = max(map(len, self._bans)) - 1  # how far back a ban may have begun
        for row, (prompt, ids) in enumerate(zip(self._prompts(), sequences, strict=False)):
            owed = prompt.owed(ids, self._tokenizer)
            said = prompt.last_bytes(ids, self._tokenizer, before)
            if owed not in self._inside:  # mostly nothing is owed, and these are always the same
                self._inside[owed] = _index(self.inside(owed), logits)
            banned[row, self._inside[owed]] = -torch.inf
            banned[row, _index(self.across(said, owed), logits)] = -torch.inf
        return banned

    def inside(self, owed: bytes) -> list[int]:
        """The ids of the tokens that hold a banned text.

        Args:
            owed: Bytes of a healed prompt that a token says again: a ban in them is not new.
        """
        found = {id for ban in self._bans for id in self._prefixes.holding(ban, start=owed)}
        return sorted(found - self._stop_ids)

    def across(self, said: bytes, owed: bytes) -> list[int]:
        """The ids of the tokens that complete a banned text begun in what was said.

        Args:
            said: The text so far, as far back as the longest ban; with what is owed at its end.
        """
        found: set[int] = set()
        for ban in self._bans:
            for n in range(1, len(ban)):
                if said.endswith(ban[:n]):
                    found.update(self._prefixes.starting_with(owed + ban[n:]))
            # Special tokens are few and stand in no order; where they are text, they are looked at.
            for name, id in self._tokenizer.special_tokens.items():
                if ban in said[max(len(said) - len(ban) + 1, 0) :] + name.encode():
                    found.add(id)
        return sorted(found - self._stop_ids)


def _index(ids: Iterable[int], logits: Float[Tensor, "B V"]) -> Tensor:
    """The ids as an index into a row, without those that the model does not have."""
    known = [id for id in ids if id < logits.size(-1)]
    return torch.tensor(known, dtype=torch.long, device=logits.device)
