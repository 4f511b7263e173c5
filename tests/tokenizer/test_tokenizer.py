"""The tokenizer in daily use: its contract, special tokens, and what it refuses."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.errors import DataError, TokenizerError
from cleangpt2.tokenizer import Tokenizer, Vocabulary, bpe
from tests.helpers import answers
from tests.tokenizer.conftest import TEXT

# Characters that both tiktoken's Unicode and the regex module's know, and bits that get cut oddly.
known_text = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs", "Cn"]),
        st.sampled_from(" \n\t'sdmtlrve019aEé._\u00a0\u3000\x00\x85"),
    )
)


@given(text=known_text)
def test_ids_equal_those_of_the_readable_algorithm(tokenizer, text):
    assert tokenizer.encode(text) == bpe.BytePairEncoder(tokenizer.vocabulary.merges).encode(text)


@given(text=st.text())
def test_decoding_gives_every_text_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_ids_are_bytes_then_merges_then_special_tokens(tokenizer):
    merges = tokenizer.vocabulary.merges
    assert tokenizer.vocab_size == 320
    assert tokenizer.token_bytes(0) == b"!"
    assert tokenizer.token_bytes(220) == b" "
    assert tokenizer.token_bytes(256) == merges[0][0] + merges[0][1]
    assert len(merges) == 320 - 256 - 3
    assert tokenizer.special_tokens == {
        "<|endoftext|>": 317, "<|pad|>": 318, "<|im_start|>": 319,
    }  # fmt: skip
    assert (tokenizer.eos_id, tokenizer.pad_id) == (317, 318)


def test_empty_text_has_no_ids(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.encode_batch(["", ""]) == [[], []]
    assert tokenizer.decode([]) == ""
    assert tokenizer.pieces("") == []
    assert tokenizer.one_hot([]).shape == (0, 320)


# ---- special tokens -----------------------------------------------------------------------


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|pad|>", "<|im_start|>"])
def test_the_text_of_a_special_token_is_plain_text(tokenizer, special):
    text = f"fox{special}dog"
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special_tokens.values())
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text]) == [ids]
    assert [piece.id for piece in tokenizer.pieces(text)] == ids


def test_a_special_token_allowed_by_name_becomes_its_id(tokenizer):
    text = "fox<|endoftext|><|pad|>"
    ids = tokenizer.encode(text, allowed_special={"<|endoftext|>"})
    expected = [*tokenizer.encode("fox"), 317, *tokenizer.encode("<|pad|>")]
    assert ids == expected
    assert tokenizer.encode_batch([text], allowed_special=["<|endoftext|>"]) == [expected]
    assert [p.id for p in tokenizer.pieces(text, allowed_special={"<|endoftext|>"})] == expected
    assert tokenizer.decode(ids) == text


def test_a_special_token_in_the_training_text_is_plain_text_there():
    tok = Tokenizer.train(["<|endoftext|> " * 9], 262)
    assert (b"<", b"|") in tok.vocabulary.merges
    assert tok.eos_id not in tok.encode("<|endoftext|>")


def test_allowing_an_unknown_name_is_refused(tokenizer):
    with pytest.raises(TokenizerError, match="'<|endoftxt|>'.*Did you mean '<|endoftext|>'"):
        tokenizer.encode("fox", allowed_special={"<|endoftxt|>"})
    with pytest.raises(TokenizerError, match="set of names"):
        tokenizer.encode("fox", allowed_special="<|endoftext|>")


def test_added_special_tokens_get_the_next_ids(tokenizer):
    more = tokenizer.add_special_tokens("<|user|>", "<|pad|>", "<|bot|>")
    assert more.special_tokens == tokenizer.special_tokens | {"<|user|>": 320, "<|bot|>": 321}
    assert more.vocab_size == 322
    assert tokenizer.vocab_size == 320
    assert more.encode("<|bot|>", allowed_special={"<|bot|>"}) == [321]
    assert more.encode(TEXT) == tokenizer.encode(TEXT)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["<|a|>", "<|a|>"], "named twice"),
        ([""], "is empty"),
        (["a"], "ordinary token"),
        (["<\ud800>"], "lone surrogate"),
        ("<|endoftext|>", r"must be a list like .*, not '<|endoftext|>'"),
    ],
)
def test_bad_special_tokens_are_refused(names, complaint):
    with pytest.raises(TokenizerError, match=complaint):
        Tokenizer.train([TEXT], 300, names)


def test_a_vocabulary_without_special_tokens_says_what_it_lacks():
    tok = Tokenizer.train([TEXT], 300, ())
    assert tok.pad_id is None
    assert tok.encode_batch([TEXT]) == [tok.encode(TEXT)]
    with pytest.raises(TokenizerError, match="no end token '<|endoftext|>'.*add_special_tokens"):
        _ = tok.eos_id


# ---- what is refused ----------------------------------------------------------------------


def test_lone_surrogates_are_refused(tokenizer):
    for encode in (tokenizer.encode, tokenizer.pieces, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(TokenizerError, match="character 3 .* lone surrogate"):
            encode("fox\ud83d")


@pytest.mark.parametrize("wrong", [320, 2**40, -1])
def test_ids_out_of_range_are_refused_by_name_and_limit(tokenizer, wrong):
    for use in (tokenizer.decode, tokenizer.decode_bytes, tokenizer.one_hot):
        with pytest.raises(TokenizerError, match=rf"id {wrong} is not .* from 0 to 319"):
            use([1, 2, wrong])
    with pytest.raises(TokenizerError, match=f"id {wrong}"):
        tokenizer.token_bytes(wrong)
    with pytest.raises(TokenizerError, match=f"id {wrong}"):
        tokenizer.stream_decoder().push(wrong)


def test_ids_that_are_not_a_flat_list_are_refused(tokenizer):
    with pytest.raises(TokenizerError, match="one flat list of whole numbers, not of list"):
        tokenizer.decode(np.array([[1, 2], [3, 4]]))


WRONG_TYPES = {
    "tok.encode(None)": "a text must be a str, not NoneType",
    "tok.encode(b'')": "a text must be a str, not bytes",
    "tok.pieces(5)": "a text must be a str, not int",
    "tok.encode_batch([5])": "encode_batch takes a list of texts (str), not [5]",
    "tok.encode_batch(['fox', b'fox'])": (
        "encode_batch takes a list of texts (str), not ['fox', b'fox']"
    ),
    "tok.encode_batch(5)": "encode_batch takes a list of texts (str), not [5]",
    "tok.decode(5)": "ids must be one flat list of whole numbers, like [5], not 5",
    "tok.decode(None)": "ids must be one flat list of whole numbers, like [5], not None",
    "tok.decode(torch.tensor(1))": (
        "ids must be one flat list of whole numbers, like [5], not tensor(1)"
    ),
    "tok.one_hot(np.array(1))": (
        "ids must be one flat list of whole numbers, like [5], not array(1)"
    ),
    "tok.one_hot([1, True])": "ids must be one flat list of whole numbers, not of bool",
    "tok.one_hot(np.ones(260, bool))": "ids must be one flat list of whole numbers, not of bool",
    "tok.add_special_tokens(['<|a|>'])": (
        "special tokens must be a list like ['<|pad|>'], not (['<|a|>'],)"
    ),
    "Tokenizer.train(5, 300)": "a corpus is made of texts (str) and files (Path), not of int",
    "Tokenizer.train(b'x', 300)": "a corpus is made of texts (str) and files (Path), not of bytes",
    "Tokenizer.train(['', 5], 300)": "a corpus is made of texts (str) and files (Path), not of int",
    "Tokenizer.train(['a'], '300')": "vocab_size must be a whole number, like 4096, not '300'",
    "Tokenizer.train(['a'], 300.0)": "vocab_size must be a whole number, like 4096, not 300.0",
    "Tokenizer.train(['a'], 300, None)": "special tokens must be a list like ['<|pad|>'], not None",
    "Tokenizer.train(['a'], 300, [5])": "special tokens must be a list like ['<|pad|>'], not [5]",
}

SETUP = """
import numpy as np
import torch
from cleangpt2.tokenizer import Tokenizer

tok = Tokenizer.train(["low low lower"], 260)
"""


def test_values_of_the_wrong_type_get_one_clear_line_each():
    assert answers(SETUP, WRONG_TYPES) == WRONG_TYPES


def test_a_batch_may_be_anything_that_gives_texts(tokenizer):
    expected = [tokenizer.encode("fox"), tokenizer.encode("dog")]
    for batch in (("fox", "dog"), iter(["fox", "dog"])):
        assert tokenizer.encode_batch(batch) == expected


def test_one_text_instead_of_a_batch_is_refused(tokenizer):
    with pytest.raises(TokenizerError, match="use encode"):
        tokenizer.encode_batch("fox")


# ---- training -----------------------------------------------------------------------------


def test_a_size_that_the_special_tokens_do_not_fit_is_refused():
    with pytest.raises(TokenizerError, match="vocab_size 257 is too small.*need 258"):
        Tokenizer.train([TEXT], 257, ("<|a|>", "<|b|>"))
    assert Tokenizer.train([TEXT], 258, ("<|a|>", "<|b|>")).vocabulary.merges == []


def test_a_size_that_the_corpus_cannot_fill_is_refused_with_the_largest_it_can():
    with pytest.raises(TokenizerError, match="300 is too large: after 2 merges.*at most 259"):
        Tokenizer.train(["aaa"], 300)
    assert Tokenizer.train(["aaa"], 259).encode("aaa") == [257]


def test_texts_and_files_train_alike(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8", newline="")
    merges = Tokenizer.train([TEXT, "more foxes"], 310).vocabulary.merges
    assert Tokenizer.train([tmp_path / "a.txt", "more foxes"], 310).vocabulary.merges == merges
    alone = Tokenizer.train(TEXT, 310).vocabulary.merges
    assert Tokenizer.train(tmp_path / "a.txt", 310).vocabulary.merges == alone
    with pytest.raises(DataError, match="missing.txt"):
        Tokenizer.train([tmp_path / "missing.txt"], 310)


# ---- other views --------------------------------------------------------------------------


@given(text=st.text())
def test_pieces_cover_the_text_and_name_their_bytes(tokenizer, text):
    pieces = tokenizer.pieces(text)
    assert [piece.id for piece in pieces] == tokenizer.encode(text)
    assert b"".join(piece.bytes for piece in pieces) == text.encode()
    for piece in pieces:
        assert piece.bytes in text[piece.start : piece.end].encode()
        if piece.is_whole:
            assert piece.text == text[piece.start : piece.end]
    if pieces:
        assert (pieces[0].start, pieces[-1].end) == (0, len(text))


def test_pieces_inside_one_character_overlap_there():
    tok = Tokenizer(Vocabulary.from_merges([(b"\xc3", b"\xa9")]))
    assert [(p.bytes, p.start, p.end, p.is_whole) for p in tok.pieces("xéñ")] == [
        (b"x", 0, 1, True),
        (b"\xc3\xa9", 1, 2, True),
        (b"\xc3", 2, 3, False),
        (b"\xb1", 2, 3, False),
    ]
    assert [p.is_whole for p in tok.pieces("\ufffd")] == [False, False, False]


def test_one_hot_times_the_embedding_matrix_is_the_lookup(tokenizer):  # S-34
    ids = tokenizer.encode("the fox ran")
    embedding = np.random.default_rng(0).normal(size=(320, 5)).astype(np.float32)
    one_hot = tokenizer.one_hot(ids)
    assert one_hot.shape == (len(ids), 320)
    assert one_hot.sum() == len(ids)
    np.testing.assert_array_equal(one_hot @ embedding, embedding[ids])


def test_ids_may_come_as_array_tensor_or_tuple(tokenizer):
    import torch

    ids = tokenizer.encode("the fox")
    for same in (tuple(ids), np.array(ids), torch.tensor(ids), iter(ids)):
        assert tokenizer.decode(same) == "the fox"


def test_a_copy_in_another_process_gives_the_same_ids(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode(TEXT) == tokenizer.encode(TEXT)
    assert copy.special_tokens == tokenizer.special_tokens
    assert repr(copy) == repr(tokenizer)
