"""What keeps the text of a message from becoming a control token.

A template gets the messages as texts and gives one text back, in which ``<|im_end|>`` may be the
template's end of a turn or a user's forgery. So before it runs, each character of the messages
that could begin a control token is replaced by a stand-in, a character that occurs nowhere in the
conversation. A control token in the result is then the template's own: at least its first
character is.
"""

import re
from collections.abc import Collection, Iterable
from itertools import chain, islice

from cleangpt2.errors import TokenizerError

_PRIVATE_USE = range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE)


class Disguise:
    """The stand-ins of one conversation.

    >>> disguise = Disguise({"<|end|>"}, ["1 < 2 <|end|>"])
    >>> hidden = disguise.everywhere("1 < 2 <|end|>")
    >>> "<" in hidden, disguise.undo(hidden)
    (False, '1 < 2 <|end|>')
    """

    def __init__(self, names: Collection[str], texts: Iterable[str]) -> None:
        """Choose stand-ins.

        Args:
            names: The control tokens.
            texts: The messages, and the template itself.
        """
        first = sorted({name[0] for name in names})
        opens, closes, *stand_ins = unused_characters(texts, 2 + len(first))
        self.marks = (opens, closes)
        """Two more characters that occur nowhere, for what is to be found again."""
        self._hide = str.maketrans(dict(zip(first, stand_ins, strict=True)))
        self._show = str.maketrans(dict(zip(stand_ins, first, strict=True)))
        self._names = one_of(names)
        self._first = frozenset(first)

    def needed(self, texts: Iterable[str]) -> bool:
        """Whether any of the texts could begin a control token."""
        return any(c in text for text in texts for c in self._first)

    def everywhere(self, text: str) -> str:
        """A text with a stand-in wherever a control token could begin."""
        return text.translate(self._hide)

    def in_names(self, text: str) -> str:
        """A text with a stand-in only where a whole control token stands."""
        return self._names.sub(lambda name: self.everywhere(name[0]), text)

    def undo(self, text: str) -> str:
        """The text as it was."""
        return text.translate(self._show)


def one_of(names: Collection[str]) -> re.Pattern[str]:
    """Matches the control tokens; where one begins like another, the longer one.

    >>> one_of({"<a>", "<a><b>"}).split("x<a><b>y")
    ['x', '<a><b>', 'y']
    """
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")  # (?!): never


def unused_characters(texts: Iterable[str], count: int) -> list[str]:
    r"""Characters without a meaning that are in none of the texts.

    >>> unused_characters(["a\ue000"], 2) == ["\ue001", "\ue002"]
    True

    Raises:
        TokenizerError: The texts hold nearly all 137,468 of them.
    """
    together = "".join(texts)
    free = (chr(c) for c in chain(*_PRIVATE_USE) if chr(c) not in together)
    if len(found := list(islice(free, count))) < count:
        raise TokenizerError("a conversation holds every private-use character of Unicode; drop it")
    return found
