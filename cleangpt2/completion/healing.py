"""Token healing: a prompt may end anywhere, also inside a word or behind a space.

"Once upon a ti" ends in the token " ti". A model has hardly ever read "me" after it, for in its
training texts that place held the one token " time". It therefore goes on with something odd: what
it has read is not taken back. The same befalls "Once upon a ", since words carry the space before
them.

Healing (as in Microsoft's ``guidance``; Lundberg, "The art of prompt design", 2023) takes the last
tokens off the prompt, the longest end with which some longer token begins, and lets the model say
their bytes again in tokens of its own choice. Until they are said, a step allows only tokens that
begin with what is owed, or with which that begins.

What it changes: a step's distribution is the model's own, restricted to the allowed tokens and
scaled up to 1; temperature and the other filters come after. Taken step by step, this is not quite
the model conditioned on the text of the whole prompt, which would weigh a first token by the chance
that the rest is said after it, too. The two agree where one token says all that is owed, which is
nearly always the choice.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cleangpt2.completion.prefixes import Prefixes
from cleangpt2.completion.prompts import Prompt
from cleangpt2.tokenizer import Tokenizer


class Healing:
    """A `Filter` that makes each response begin with the bytes that its prompt lost."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prefixes: Prefixes,
        prompts: Callable[[], Iterable[Prompt]],
    ) -> None:
        """Make the filter of one generation.

        Args:
            prompts: Gives the prompt of each row at work, in their order.
        """
        self._tokenizer = tokenizer
        self._prefixes = prefixes
        self._prompts = prompts
        self._allowed: dict[bytes, Tensor] = {}

    def __repr__(self) -> str:
        return "heal"  # what errors call it

    def __call__(
        self, logits: Float[Tensor, "B V"], sequences: Sequence[Sequence[int]]
    ) -> Float[Tensor, "B V"]:
        """Forbid what does not agree with the bytes that a row owes."""
        healed = logits
        for row, (prompt, ids) in enumerate(zip(self._prompts(), sequences, strict=False)):
            if owed := prompt.owed(ids, self._tokenizer):
                healed = logits.clone() if healed is logits else healed
                allowed = self._allowed_for(owed, logits)
                healed[row] = -torch.inf
                healed[row, allowed] = logits[row, allowed]
        return healed

    def _allowed_for(self, owed: bytes, logits: Float[Tensor, "B V"]) -> Tensor:
        if owed not in self._allowed:
            known = [id for id in agreeing(owed, self._prefixes) if id < logits.size(-1)]
            self._allowed[owed] = torch.tensor(known, device=logits.device)
        return self._allowed[owed]


def agreeing(owed: bytes, prefixes: Prefixes) -> list[int]:
    """The ids of the tokens that begin with the bytes owed, or with which these begin.

    >>> agreeing(b"tim", Prefixes({b"t": 0, b"ti": 1, b"time": 2, b"timid": 3, b"me": 4}))
    [0, 1, 2, 3]
    """
    return prefixes.beginning(owed) + prefixes.starting_with(owed)
