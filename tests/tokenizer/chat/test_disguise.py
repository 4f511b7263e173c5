"""Stand-ins for the characters of which control tokens are made."""

import pytest

from cleangpt2.errors import TokenizerError
from cleangpt2.tokenizer.chat.disguise import Disguise, one_of, unused_characters

NAMES = {"<|a|>", "<|a|>b", "[X]"}


def test_no_control_token_begins_in_a_disguised_text():
    text = "<|a|> [X] <<|a|>b] ["
    disguise = Disguise(NAMES, [text])
    for hidden in (disguise.everywhere(text), disguise.in_names(text)):
        assert len(hidden) == len(text)
        assert one_of(NAMES).search(hidden) is None
        assert disguise.undo(hidden) == text
    assert not set(disguise.everywhere(text)) & set("<[")
    assert disguise.in_names("< and [") == "< and ["


def test_a_disguise_is_needed_only_where_a_control_token_could_begin():
    disguise = Disguise(NAMES, [])
    assert disguise.needed(["a", "b ["])
    assert not disguise.needed(["a|>", "X]", ""])


def test_stand_ins_occur_nowhere_in_the_conversation():
    text = "".join(map(chr, range(0xE000, 0xF8F0)))
    disguise = Disguise(NAMES, [text, "\uf8f1"])
    chosen = {*disguise.marks, disguise.everywhere("<"), disguise.everywhere("[")}
    assert len(chosen) == 4
    assert not chosen & {*text, "\uf8f1"}
    assert disguise.undo(disguise.everywhere(text)) == text


def test_a_text_of_all_private_characters_is_refused():
    every = "".join(map(chr, (*range(0xE000, 0xF900), *range(0xF0000, 0x110000))))
    with pytest.raises(TokenizerError, match="every private-use character"):
        unused_characters([every], 1)


def test_a_vocabulary_without_control_tokens_has_none_in_its_texts():
    assert one_of(()).split("<|a|>") == ["<|a|>"]
