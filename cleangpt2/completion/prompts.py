"""A prompt as text and as the ids that the model reads, and where in it a response stands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cleangpt2.completion.prefixes import Prefixes
from cleangpt2.errors import InputError
from cleangpt2.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was asked, and what of it the model reads."""

    text: str
    ids: list[int]
    """The tokens of the text, less those that healing took off; never none."""
    healed: bytes = b""
    """The bytes of those taken off, with which the response begins once more."""

    @classmethod
    def read(
        cls, text: "str | Prompt", tokenizer: Tokenizer, heal_with: Prefixes | None = None
    ) -> "Prompt":
        """Encode a text; an empty one starts from the end-of-text token.

        Args:
            text: A prompt whose ids are known, as a chat template gives them, stays as it is.
            heal_with: The vocabulary, if the last tokens may be taken off (see ``healing``).

        Raises:
            InputError: It is no text.
        """
        if isinstance(text, Prompt):
            return text
        if not isinstance(text, str):
            raise InputError(
                f"prompt {text!r} is a {type(text).__name__}, not text; for token ids use "
                "sampler.decode.Decoding"
            )
        ids = tokenizer.encode(text)
        kept = len(ids) if heal_with is None else kept_by_healing(ids, tokenizer, heal_with)
        return cls(text, ids[:kept] or [tokenizer.eos_id], tokenizer.decode_bytes(ids[kept:]))

    def owed(self, sequence: Sequence[int], tokenizer: Tokenizer) -> bytes:
        """The healed bytes that this sequence, prompt included, has yet to say again."""
        if not self.healed:
            return b""
        start = len(self.ids)  # a token has at least one byte, so there is no need to read on
        again = tokenizer.decode_bytes(sequence[start : start + len(self.healed)])
        return self.healed[len(again) :]

    def last_bytes(self, sequence: Sequence[int], tokenizer: Tokenizer, n: int) -> bytes:
        """The last n bytes of the text that this sequence makes, or will make once healed."""
        response = sequence[len(self.ids) :]
        if len(response) > n + len(self.healed):  # a token has at least one byte
            text = tokenizer.decode_bytes(response[len(response) - n :])
        else:
            text = self.text.encode() + tokenizer.decode_bytes(response)[len(self.healed) :]
        return text[max(len(text) - n, 0) :]


def kept_by_healing(ids: list[int], tokenizer: Tokenizer, prefixes: Prefixes) -> int:
    """How many tokens stay when the longest end that some longer token begins with comes off.

    >>> tokenizer = Tokenizer.train(["low low low lower lowest"], vocab_size=261)
    >>> prefixes, ids = Prefixes(tokenizer.vocabulary.ids), tokenizer.encode("low lo")
    >>> [tokenizer.token_bytes(id) for id in ids]
    [b'low', b' ', b'lo']
    >>> kept_by_healing(ids, tokenizer, prefixes)  # " lo" begins " low"
    1
    """
    kept, end = len(ids), b""
    for n in range(len(ids) - 1, -1, -1):
        end = tokenizer.token_bytes(ids[n]) + end
        if len(end) >= prefixes.longest:
            break
        if prefixes.can_go_on(end):
            kept = n
    return kept


def listed(texts: Any) -> list[Any]:
    """Several texts, or one; what is neither stands alone, to be refused by its name."""
    return (
        list(texts)
        if isinstance(texts, Iterable) and not isinstance(texts, str | bytes | Mapping)
        else [texts]
    )
