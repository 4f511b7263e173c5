"""gigatoken against the plain ways: the same ids and the same merges, whatever the text."""

import random
import sys
import unicodedata

import numpy as np
import pytest
import regex
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.tokenizer import Tokenizer, bpe, learning
from tests.helpers import require, run_python
from tests.tokenizer.conftest import TEXT

gigatoken = require("gigatoken")
from cleangpt2.tokenizer import fast  # noqa: E402

settled_characters = [chr(c) for c in range(0x110000) if fast.is_settled(chr(c))]
settled_text = st.text(
    st.one_of(
        st.sampled_from(settled_characters),
        st.sampled_from(" \n\t'sdmtlrve019aEé._\u00a0\u3000\x00\x85"),
    )
)


@pytest.fixture(scope="module")
def bulk(tokenizer):
    return fast.BulkEncoder(tokenizer.vocabulary)


def never(text):
    raise AssertionError(f"{text!r} is settled and took the plain way")


@given(texts=st.lists(settled_text, max_size=8))
def test_settled_text_gets_the_ids_of_tiktoken(tokenizer, bulk, texts):
    assert bulk.encode(texts, otherwise=never) == [tokenizer.encode(text) for text in texts]


@given(texts=st.lists(st.text(), max_size=8))
def test_any_text_gets_the_ids_of_tiktoken(tokenizer, bulk, texts):
    expected = [tokenizer.encode(text) for text in texts]
    assert bulk.encode(texts, otherwise=tokenizer.encode) == expected


@given(texts=st.lists(st.text(), max_size=8))
def test_one_flat_row_holds_the_ids_of_tiktoken(tokenizer, bulk, texts):
    ids, lengths = bulk.encode_flat([text.encode() for text in texts], otherwise=tokenizer.encode)
    pieces = np.split(ids, np.cumsum(lengths)[:-1]) if texts else []
    assert [piece.tolist() for piece in pieces] == [tokenizer.encode(text) for text in texts]


def test_a_tokenizer_that_expects_many_texts_uses_the_bulk_encoder(tokenizer):
    fresh = Tokenizer(tokenizer.vocabulary)
    rows = [fresh.encode_flat([b"the fox", "\u0378 dog".encode()])]
    fresh.expect_many()
    rows.append(fresh.encode_flat([b"the fox", "\u0378 dog".encode()]))
    assert rows[0][0].tolist() == rows[1][0].tolist()
    assert rows[0][1].tolist() == rows[1][1].tolist()
    assert fresh._bulk is not None


def test_every_settled_character_is_a_letter_a_number_or_a_space_to_all_engines():
    def of_tiktoken(pattern):
        ranks = {bytes([byte]): byte for byte in range(256)}
        engine = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        found = engine.encode_ordinary("".join(settled_characters))  # what matches, and no more
        return set(engine.decode(found))

    def of_gigatoken(before):
        join = {
            c: len(list(gigatoken.pretokenizer((before + c).encode()))) == 1
            for c in settled_characters
        }
        return {c for c, joined in join.items() if joined}

    letters = {c for c in settled_characters if regex.match(r"\p{L}", c)}
    numbers = {c for c in settled_characters if regex.match(r"\p{N}", c)}
    assert of_tiktoken(r"\p{L}") == letters == of_gigatoken("b")
    assert of_tiktoken(r"\p{N}") == numbers == of_gigatoken("1")
    others = {c for c in settled_characters if regex.match(r"[^\s\p{L}\p{N}]", c)}
    assert of_tiktoken(r"[^\s\p{L}\p{N}]") == others == of_gigatoken(".")


def test_settled_characters_are_all_assigned_and_include_everyday_text():
    assert not [c for c in settled_characters if unicodedata.category(c) in ("Cn", "Cs")]
    assert fast.is_settled(
        "“Où est-ce?” — naïve Ångström Привет שלום नमस्ते 我们 ひらがな 한국어 👍🏽 €5 ½"
    )
    assert not fast.is_settled("\ud800")
    assert not fast.is_settled("\u0378")  # never assigned
    assert not fast.is_settled("abc\U00011de0")  # a digit since Unicode 17


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|pad|>"])
def test_the_text_of_a_special_token_is_plain_text(tokenizer, bulk, special):
    text = f"a{special}b {special}"
    assert bulk.encode([text], otherwise=never) == [tokenizer.encode(text)]
    assert not {*tokenizer.special_tokens.values()} & {*bulk.encode([text], otherwise=never)[0]}


def test_long_runs_of_one_letter_take_both_ways_alike(tokenizer, bulk):
    texts = [
        "a" * 100_000,
        "é" * 50_000,
        " " * 100_000,
        "\n" * 100_000,
        "ab" * 50_000,
        "7" * 100_000,
    ]
    assert bulk.encode(texts, otherwise=never) == [tokenizer.encode(text) for text in texts]


def test_encode_batch_goes_through_gigatoken_once_the_texts_are_many(tokenizer, monkeypatch):
    monkeypatch.setattr(learning, "_BULK", 1000)
    calls = []
    encode = fast.BulkEncoder.encode
    monkeypatch.setattr(
        fast.BulkEncoder, "encode", lambda *args, **more: calls.append(1) or encode(*args, **more)
    )
    tok = Tokenizer(tokenizer.vocabulary)
    few, many = [TEXT, "\U00011de0x"], [TEXT, "\U00011de0x"] * 9
    assert tok.encode_batch(few) == [tokenizer.encode(text) for text in few]
    assert not calls
    assert tok.encode_batch(many) == [tokenizer.encode(text) for text in few] * 9
    assert tok.encode_batch(few) == [tokenizer.encode(text) for text in few]
    assert len(calls) == 2  # and stays with it once it is loaded


def test_everything_works_without_the_extra(tokenizer, monkeypatch):
    monkeypatch.setattr(learning, "_BULK", 0)
    monkeypatch.setitem(sys.modules, "cleangpt2.tokenizer.fast", None)
    assert learning.fast_module(10**9) is None
    tok = Tokenizer(tokenizer.vocabulary)
    assert tok.encode_batch([TEXT] * 3) == [tokenizer.encode(TEXT)] * 3
    plain = Tokenizer.train([TEXT], 310)
    assert plain.vocabulary.merges == bpe.train([TEXT], 53)


# ---- memory --------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """A list that grows with every engine that is made."""
    from_json, calls = gigatoken.Tokenizer.from_json, []
    monkeypatch.setattr(
        gigatoken.Tokenizer, "from_json", lambda text: calls.append(1) or from_json(text)
    )
    return calls


def test_an_engine_that_remembers_too_much_is_made_anew_and_gives_the_same(
    tokenizer, made, monkeypatch
):
    used = iter([0, 0, 50, 150, 150, 200, 300, 300])  # asked for each text and each engine
    monkeypatch.setattr(fast, "_resident", lambda: next(used))
    monkeypatch.setattr(fast, "MEMORY", 100)
    encoder = fast.BulkEncoder(tokenizer.vocabulary)
    rows = [encoder.encode_flat([TEXT.encode()], otherwise=never)[0].tolist() for _ in range(4)]
    assert len(made) == 3
    assert rows == [tokenizer.encode(TEXT)] * 4


def test_where_nobody_tells_the_memory_so_much_text_makes_a_new_engine(
    tokenizer, made, monkeypatch
):
    monkeypatch.setattr(fast, "_resident", lambda: None)
    monkeypatch.setattr(fast, "MEMORY", 100)
    encoder = fast.BulkEncoder(tokenizer.vocabulary)
    for _ in range(7):  # 1,400 letters, anew once more than 400 are behind it
        encoder.encode(["a" * 200], otherwise=never)
    assert len(made) == 3


GROWTH = """
import random, sys
from cleangpt2.tokenizer import Tokenizer, fast

fast.MEMORY = 1 << 24
letters = bytes((b"abcdefghijklmnopqrstuvwxyz" * 10)[:220] + b" " * 36)
tokenizer, rng = Tokenizer.from_pretrained(sys.argv[1]), random.Random(0)
encoder, before, most = fast.BulkEncoder(tokenizer.vocabulary), fast._resident(), []
for _ in range(int(sys.argv[2])):
    text = rng.randbytes(1 << 20).translate(letters)
    encoder.encode_flat([text], otherwise=None)
    most.append(fast._resident() - before)
print(max(most) >> 20)
"""


@pytest.mark.slow
@pytest.mark.skipif(fast._resident() is None, reason="only Linux tells how much memory is used")
def test_words_that_never_come_again_do_not_fill_the_memory(tokenizer, tmp_path):
    tokenizer.save(tmp_path)

    def growth(megabytes):
        done = run_python("-c", GROWTH, str(tmp_path), str(megabytes))
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    few, many = growth(10), growth(30)
    assert many < 1.25 * few + 10
    assert many < 150  # all words together take 270


# ---- training -----------------------------------------------------------------------------


def corpora():
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdeé ", k=rng.randrange(1, 9))) for _ in range(400)]
    return {
        "story": [TEXT],
        "runs of one letter": ["a" * rng.randrange(1, 40) for _ in range(300)],
        "random words": [" ".join(rng.choices(words, k=60)) for _ in range(60)],
        "runs out": ["abc", "aab ab"],
        "settled characters": ["".join(rng.choices(settled_characters, k=30)) for _ in range(60)],
        "empty texts": ["", "aa", "", "aab"],
    }


@pytest.mark.parametrize("name", corpora())
@pytest.mark.parametrize("n_merges", [0, 1, 10, 100, 400])
def test_gigatoken_learns_the_merges_of_the_readable_trainer_or_declines(name, n_merges):
    texts = corpora()[name]
    expected = bpe.train(texts, n_merges)
    merges = fast.train(texts, n_merges)
    if len(expected) < n_merges:
        assert merges is None  # nothing was left to merge, which gigatoken would not notice
    else:
        assert merges is None or merges == expected
        assert merges is not None or all_one_token(texts, expected)


def all_one_token(texts, merges):
    tokens = {left + right for left, right in merges} | {bytes([byte]) for byte in range(256)}
    return {piece.encode() for text in texts for piece in bpe.split(text)} <= tokens


def test_text_that_is_not_settled_is_left_to_the_readable_trainer():
    assert fast.train([TEXT, "\U00011de0"], 5) is None
    assert fast.train([TEXT, "\ud800"], 5) is None


def test_training_prints_nothing(capfd):
    fast.train([TEXT] * 10, 20)
    print("still here")
    assert capfd.readouterr() == ("still here\n", "")


def test_a_tokenizer_is_the_same_with_and_without_gigatoken(monkeypatch):
    texts = corpora()["random words"]
    monkeypatch.setattr(learning, "_BULK", 0)
    quick = Tokenizer.train(texts, 500).vocabulary.merges
    monkeypatch.setitem(sys.modules, "cleangpt2.tokenizer.fast", None)
    assert Tokenizer.train(texts, 500).vocabulary.merges == quick
