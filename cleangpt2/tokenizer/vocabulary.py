"""A vocabulary: which tokens there are, and their ids.

Everything follows from the list of merges. In GPT-2's layout ids 0 to 255 are the bytes in the
order of ``bpe.bytes_to_printable``, the merges follow in the order learned, then the special
tokens. Other vocabularies of the same kind may number their tokens in another way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cleangpt2.errors import TokenizerError
from cleangpt2.tokenizer.bpe import Merge, bytes_to_printable

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens and their ids; immutable."""

    merges: Sequence[Merge]
    """Pairs of byte strings, in the order learned."""
    ids: Mapping[bytes, int]
    """Ordinary tokens: the 256 bytes and the merges, whose ids rise in the order learned."""
    special: Mapping[str, int]
    """Tokens with a meaning of their own; their text in user input is plain text."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else ``tokenizer_config.json`` says and a saved copy keeps, such as ``eos_token``."""

    def __post_init__(self) -> None:
        for name in self.special:
            if not name:
                raise TokenizerError("a special token is empty; give it a text like '<|pad|>'")
            if any("\ud800" <= c <= "\udfff" for c in name):
                raise TokenizerError(
                    f"special token {name!r} holds a lone surrogate, half a character that UTF-8 "
                    "cannot write; leave it out"
                )
            if _is_ordinary(name, self.ids):
                raise TokenizerError(
                    f"special token {name!r} is an ordinary token too; "
                    f"take a text that is not, like '<|{name}|>'"
                )

    @classmethod
    def from_merges(
        cls,
        merges: Sequence[Merge],
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        settings: Mapping[str, Any] | None = None,
    ) -> "Vocabulary":
        """The vocabulary of these merges in GPT-2's layout.

        >>> vocabulary = Vocabulary.from_merges([(b"h", b"e")])
        >>> vocabulary.ids[b"he"], vocabulary.special
        (256, {'<|endoftext|>': 257})
        """
        check_names(special_tokens)
        if repeated := {name for name in special_tokens if special_tokens.count(name) > 1}:
            raise TokenizerError(f"special token {min(repeated)!r} is named twice; name it once")
        tokens = [bytes([byte]) for byte in bytes_to_printable()]
        tokens += [left + right for left, right in merges]
        special = {name: len(tokens) + i for i, name in enumerate(special_tokens)}
        return cls(merges, {token: i for i, token in enumerate(tokens)}, special, settings or {})

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return 1 + max(*self.ids.values(), *self.special.values())

    @property
    def eos_id(self) -> int:
        """The id that ends a text.

        Raises:
            TokenizerError: There is none.
        """
        name = self.settings.get("eos_token", END_OF_TEXT)
        if name not in self.special:
            raise TokenizerError(
                f"this vocabulary has no end token {name!r}; add it with add_special_tokens"
            )
        return self.special[name]

    @property
    def pad_id(self) -> int | None:
        """The id that fills up a batch, if there is one."""
        return self.special.get(self.settings.get("pad_token", PAD))

    def shown(self) -> dict[str, int]:
        """Token to id as in ``vocab.json``: bytes printable, special tokens as they are."""
        return dict(zip(show_all(self.ids), self.ids.values(), strict=True)) | dict(self.special)


_PRINTABLE = bytes_to_printable()
_BYTES = {character: byte for byte, character in _PRINTABLE.items()}


def show(token: bytes) -> str:
    """A token as ``merges.txt`` and ``vocab.json`` write it.

    >>> show(b" day")
    'Ġday'
    """
    return "".join([_PRINTABLE[byte] for byte in token])


def show_all(tokens: Iterable[bytes]) -> list[str]:
    r"""As `show` for each token; all in one piece, which is several times as fast.

    >>> show_all([b" day", b"\xff"])
    ['Ġday', 'ÿ']
    """
    between = "\uffff"  # no token holds it: as Latin-1 every byte is a character up to U+00FF
    whole = between.join([token.decode("latin-1") for token in tokens])
    return whole.translate(_PRINTABLE).split(between) if whole else []


def check_names(names: Sequence[str]) -> None:
    """Refuse what is not a sequence of texts; a single text is one too, of its letters."""
    is_sequence = isinstance(names, Sequence) and not isinstance(names, str)
    if not is_sequence or not all(isinstance(name, str) for name in names):
        raise TokenizerError(f"special tokens must be a list like ['<|pad|>'], not {names!r}")


def _is_ordinary(name: str, ids: Mapping[bytes, int]) -> bool:
    """Whether ``vocab.json`` would write an ordinary token as ``name``."""
    return all(c in _BYTES for c in name) and bytes([_BYTES[c] for c in name]) in ids


def format_merges(merges: Sequence[Merge]) -> str:
    r"""The content of a ``merges.txt``.

    >>> format_merges([(b"h", b"e"), (b" ", b"he")])
    '#version: 0.2\nh e\nĠ he\n'
    """
    lefts, rights = zip(*merges, strict=True) if merges else ((), ())
    lines = map(" ".join, zip(show_all(lefts), show_all(rights), strict=True))
    return "\n".join(["#version: 0.2", *lines, ""])


def parse_merges(text: str, where: str = "merges.txt") -> list[Merge]:
    r"""The merges of a ``merges.txt``.

    >>> parse_merges("#version: 0.2\nh e\nĠ he\n")
    [(b'h', b'e'), (b' ', b'he')]

    Raises:
        TokenizerError: A line is not two tokens that earlier lines made, or makes one again.
    """
    made = {character: bytes([byte]) for character, byte in _BYTES.items()}
    merges = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.partition(" ")
        if left not in made or right not in made or left + right in made:
            known = left in made and right in made
            reason = "makes a token again" if known else "is not two known tokens"
            raise TokenizerError(f"{where}, line {number} {reason}: {line[:60]!r}; is it damaged?")
        merges.append((made[left], made[right]))
        made[left + right] = made[left] + made[right]
    return merges


def share_with_space(merges: Sequence[Merge]) -> float:
    """The share of merges whose token starts with a space.

    >>> share_with_space([(b" ", b"a"), (b"h", b"e")])
    0.5
    """
    return sum(left.startswith(b" ") for left, _ in merges) / max(len(merges), 1)
