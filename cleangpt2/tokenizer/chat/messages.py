"""What is said in a conversation, and by whom."""

from collections.abc import Sequence
from dataclasses import dataclass

from cleangpt2.errors import InputError

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    >>> Message("user", "Name a colour of the sky.")
    Message(role='user', content='Name a colour of the sky.', input='')
    """

    role: str
    """"system", "user" or "assistant"."""
    content: str
    input: str = ""
    """What the instruction in `content` is about, where a data set keeps the two apart as Alpaca
    does; a template that knows no input gets both as one text."""

    def __post_init__(self) -> None:
        # A role becomes part of what a template writes, so it may not be anybody's text.
        if self.role not in ROLES:
            raise InputError(f"a message's role is {self.role!r}; it must be {', '.join(ROLES)}")
        for name in ("content", "input"):
            if not isinstance(text := getattr(self, name), str):
                kind = type(text).__name__
                raise InputError(f"a message's {name} must be a text (str), not {kind}")


def as_dicts(messages: Sequence[Message], *, with_input: bool) -> list[dict[str, str]]:
    r"""The messages as a Jinja template takes them.

    >>> as_dicts([Message("user", "Translate to French.", "A dog.")], with_input=False)
    [{'role': 'user', 'content': 'Translate to French.\n\nA dog.'}]

    Args:
        messages: A conversation.
        with_input: Give an input as a key of its own; otherwise it follows the content.
    """
    rows = [{"role": message.role, "content": message.content} for message in messages]
    for row, message in zip(rows, messages, strict=True):
        if message.input and with_input:
            row["input"] = message.input
        elif message.input:
            row["content"] += f"\n\n{message.input}"
    return rows
