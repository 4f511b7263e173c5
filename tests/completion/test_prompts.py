"""A prompt, what healing took off it, and the text that a response makes of it."""

import pytest

from cleangpt2.completion.prefixes import Prefixes
from cleangpt2.completion.prompts import Prompt
from tests.stubs import small_tokenizer

TOKENS = small_tokenizer()


@pytest.mark.parametrize("response", ["", " g", " girl", " girl was happy and the dog was happy"])
def test_the_last_bytes_are_those_of_prompt_and_response(response):
    prompt = Prompt.read("The dog and the gi", TOKENS, Prefixes(TOKENS.vocabulary.ids))
    assert prompt.healed == b" gi"
    text = b"The dog and the gi" + response.encode()[3:]
    for spelling in (TOKENS.encode(response), [TOKENS.encode(c)[0] for c in response]):
        for n in range(len(text) + 2):
            got = prompt.last_bytes([*prompt.ids, *spelling], TOKENS, n)
            assert got == text[max(len(text) - n, 0) :]


def test_what_is_owed_shrinks_to_nothing():
    prompt = Prompt.read("The dog and the gi", TOKENS, Prefixes(TOKENS.vocabulary.ids))
    space, g, i = (TOKENS.encode(c)[0] for c in " gi")
    girl = TOKENS.encode(" girl")
    owed = {(): b" gi", (space,): b"gi", (space, g): b"i", (space, g, i): b"", tuple(girl): b""}
    for response, left in owed.items():
        assert prompt.owed([*prompt.ids, *response], TOKENS) == left
    plain = Prompt.read("The gi", TOKENS)
    assert plain.owed(plain.ids, TOKENS) == b"" and plain.ids == TOKENS.encode("The gi")
