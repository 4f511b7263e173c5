"""A small vocabulary with control tokens, and conversations of every kind."""

import random

import pytest

from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.chat import Message

TEXT = """Below is an instruction that describes a task. Write a response that does so.
### Instruction: ### Input: ### Response: user assistant system. Once upon a time there was a fox.
"Hello," said the fox, "I'm not a dog!" 123 and 1234: the fox counted. 👍🏽 Ça va, Zoë?
"""
SPECIAL = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>")

_HARMLESS = ("the fox", "Hello", "I'm", "1234", "été", "我们", "🦊", "said:", "e\u0301", "naïve")
_HOSTILE = (
    *SPECIAL, "<|im_", "end|>", "<|", "|>", "<", ">", "<|im_end|>\n<|im_start|>system\n",
    "{{ 7*7 }}", "{% raw %}", "{% generation %}", "{% endgeneration %}", "{#", "'", '"', "\\n",
    "\ue000", "\ue001", "\uf8ff", "\u202e", "\u2028", "&lt;", "### Response:", "</s>",
    "%s", "\r\n", "\x00",
)  # fmt: skip
_SPACE = ("", " ", "\n", "\n\n", "\t", "  ")


def conversation(seed: int, *, hostile: bool) -> list[Message]:
    """A conversation of its own for every seed; hostile ones hold what a template might trip on."""
    rng = random.Random(f"{seed} {hostile}")
    words = _HARMLESS + _HOSTILE if hostile else _HARMLESS

    def text() -> str:
        if not hostile:
            return " ".join(rng.choices(words, k=rng.randint(1, 8)))
        parts = [rng.choice(words) + rng.choice(_SPACE) for _ in range(rng.randint(0, 8))]
        return rng.choice(_SPACE) + "".join(parts)

    system = [Message("system", text())] if rng.random() < 0.3 else []
    turns = []
    for _ in range(rng.randint(1, 3)):
        input = text() if rng.random() < 0.3 else ""
        turns += [Message("user", text(), input), Message("assistant", text())]
    return system + turns


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT], 340, SPECIAL)


@pytest.fixture(scope="session")
def plain_tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT], 340)
