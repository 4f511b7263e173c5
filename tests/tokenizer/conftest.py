"""One small vocabulary for the tests of this folder."""

import pytest

from cleangpt2.tokenizer import Tokenizer

TEXT = """Once upon a time there was a little fox. "Hello," said the fox, "I'm not a dog!"
The dog ran over the hill, and over the other hill, and the fox ran after it. 👍🏽 Ça va, Zoë?
123 and 1234 and 12345: the fox counted, and the dog counted too.   They went home.
"""


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT], 320, ("<|endoftext|>", "<|pad|>", "<|im_start|>"))
