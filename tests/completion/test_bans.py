"""Banned texts never come, whichever tokens would write them, and nothing else is forbidden."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cleangpt2.completion import beam_search, generate
from cleangpt2.completion.bans import Bans
from cleangpt2.completion.prefixes import Prefixes
from cleangpt2.errors import SamplingError
from tests.stubs import constant_model, small_tokenizer

TOKENS = small_tokenizer()
EVERY = {**TOKENS.vocabulary.ids, **{n.encode(): i for n, i in TOKENS.vocabulary.special.items()}}
BAN = st.text("the agir<|é", min_size=1, max_size=4)
SAID = st.lists(st.sampled_from([*"thegir ", "the ", "é", " girl"]), max_size=5).map("".join)


def occurrences(text, ban):
    """Where `ban` ends in `text`."""
    return {n for n in range(len(text) + 1) if text[:n].endswith(ban)}


@example(bans=["the"], said="the th", owed=" th")  # the rest of it may be said, the ban may not
@example(bans=["girl", "rl"], said="gi", owed="")
@example(bans=["d|>"], said="", owed="")  # in the name of a special token
@given(st.lists(BAN, min_size=1, max_size=3), SAID, st.sampled_from(["", " ", " th", "gi", "é"]))
def test_what_is_forbidden_is_what_a_scan_of_the_vocabulary_finds(bans, said, owed):
    said, owed = said.encode() + owed.encode(), owed.encode()
    rule = Bans(bans, TOKENS, Prefixes(TOKENS.vocabulary.ids), list)
    got = set(rule.inside(owed)) | set(rule.across(said, owed))
    expected = set()
    for token, id in EVERY.items():
        if id in TOKENS.vocabulary.special.values() and owed:
            got -= {id}  # healing allows no special token yet
        elif token.startswith(owed):  # a token that ends before says nothing new
            whole = said + token[len(owed) :]
            ends = set().union(*(occurrences(whole, ban.encode()) for ban in bans))
            expected |= {id} if any(end > len(said) for end in ends) else set()
    assert got == expected


@pytest.mark.parametrize("heal", [False, True])
@pytest.mark.parametrize("bans", [["e"], ["the", "he", " gi"], ["og", "é", "irlh"], ["a dog"]])
def test_a_banned_text_is_never_written(babbler, tokenizer, bans, heal):
    prompts = ["The gi", "Once upon a ti", "o", ""]
    settings = {"num_samples": 4, "max_new_tokens": 40, "seed": 3, "heal": heal, "stop_ids": ()}
    free = generate(babbler, tokenizer, prompts, **settings)
    assert len(bans[0]) > 4 or any(bans[0] in out.text for out in free)  # it would come
    for out in generate(babbler, tokenizer, prompts, ban=bans, **settings):
        whole = out.prompt + out.text
        for ban in bans:
            assert whole.find(ban, max(len(out.prompt) - len(ban) + 1, 0)) < 0
        assert len(out.ids) == 40


def test_a_ban_may_stand_in_the_prompt(alphabet, tokenizer):
    out = generate(alphabet, tokenizer, "cdxa", ban="cd", temperature=0, max_new_tokens=3)
    assert out.text.startswith("bc") and not out.text.startswith("bcd")


def test_a_ban_that_begins_in_the_prompt_counts(alphabet, tokenizer):
    assert generate(alphabet, tokenizer, "a", temperature=0, max_new_tokens=1).text == "b"
    assert generate(alphabet, tokenizer, "a", ban="ab", temperature=0, max_new_tokens=1).text != "b"


def test_the_end_of_text_ends_a_text_whatever_is_banned(tokenizer):
    logits = [0.0] * tokenizer.vocab_size
    logits[tokenizer.eos_id] = 100.0
    model = constant_model(logits)
    out = generate(model, tokenizer, "a", ban="end", temperature=0, max_new_tokens=3)
    assert (out.ids, out.finish_reason) == ([tokenizer.eos_id], "stop")
    out = generate(model, tokenizer, "a", ban="end", temperature=0, max_new_tokens=3, stop_ids=())
    assert tokenizer.eos_id not in out.ids  # where it is text, its name is too


def test_capitals_and_spaces_count(babbler, tokenizer):
    settings = {"max_new_tokens": 50, "seed": 3, "num_samples": 8}
    text = "".join(out.text for out in generate(babbler, tokenizer, "A", ban=" g", **settings))
    assert " g" not in text and "g" in text
    text = "".join(out.text for out in generate(babbler, tokenizer, "A", ban="G", **settings))
    assert "g" in text


def test_a_ban_holds_in_a_search(babbler, tokenizer):
    ban = beam_search(babbler, tokenizer, "The dog", max_new_tokens=12)[0].text[2:5]
    outs = beam_search(babbler, tokenizer, "The dog", max_new_tokens=12, num_return=4, ban=ban)
    assert len(outs) == 4 and all(ban not in out.text for out in outs)


@pytest.mark.parametrize(("start", "prompt"), [("a cat", "x"), ("t", "a ca")])
def test_a_start_that_is_banned_is_refused(model, tokenizer, start, prompt):
    with pytest.raises(
        SamplingError, match=f"start '{start}' would write 'cat', which ban forbids"
    ):
        generate(model, tokenizer, ["fine", prompt], start=start, ban=["dog", "cat"])


def test_bans_that_leave_no_token_are_one_line(model, tokenizer):
    def only_b(logits, sequences):
        [b] = tokenizer.encode("b")
        forbidden = torch.arange(logits.size(1)) != b
        return logits.masked_fill(forbidden, -torch.inf)

    with pytest.raises(SamplingError, match="the filter only_b left no token to choose") as caught:
        generate(model, tokenizer, "a", ban=[*"abc"], filters=[only_b])
    assert "\n" not in str(caught.value)


def test_a_character_that_stands_for_broken_bytes_cannot_be_banned(model, tokenizer):
    with pytest.raises(SamplingError, match="U\\+FFFD"):
        generate(model, tokenizer, "a", ban="x\ufffd")
