"""The readable algorithm against textbook versions that recount and rescan everything."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.errors import TokenizerError
from cleangpt2.tokenizer import bpe


def naive_train(texts, n_merges):
    """Count all pairs from the start for each merge; of the most frequent, take the smallest."""
    words = [list(piece.encode()) for text in texts for piece in bpe.split(text)]
    tokens, merges = [bytes([byte]) for byte in range(256)], []
    for _ in range(n_merges):
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        words = [glue(word, pair, len(tokens)) for word in words]
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
    return merges


def glue(word, pair, new):
    word = list(word)
    for i in range(len(word) - 1):
        if tuple(word[i : i + 2]) == pair:
            word[i : i + 2] = [new, None]
    return [i for i in word if i is not None]


def naive_encode(encoder, piece, merges):
    """Glue one pair at a time: of the earliest learned, the leftmost."""
    rank = {merge: k for k, merge in enumerate(merges)}
    parts = [bytes([byte]) for byte in piece.encode()]
    while found := [(rank[p], i) for i, p in enumerate(pairwise(parts)) if p in rank]:
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [encoder.tokens.index(part) for part in parts]


few_letters = st.text(alphabet="ab c.é\n", max_size=40)


@given(st.lists(few_letters, max_size=6), st.integers(0, 40))
def test_training_equals_recounting_everything(texts, n_merges):
    assert bpe.train(texts, n_merges) == naive_train(texts, n_merges)


@given(st.lists(st.text(alphabet="aab", max_size=30), max_size=4))
def test_training_counts_overlapping_pairs_like_the_textbook(texts):
    assert bpe.train(texts, 20) == naive_train(texts, 20)


@given(few_letters, st.lists(few_letters, max_size=6))
def test_encoding_equals_merging_one_pair_at_a_time(text, texts):
    merges = bpe.train(texts, 25)
    encoder = bpe.BytePairEncoder(merges)
    ids = [i for piece in bpe.split(text) for i in naive_encode(encoder, piece, merges)]
    assert encoder.encode(text) == ids


def test_training_worked_by_hand():
    # h u g: hug x2, pug x1, hugs x1.  ug 4, hu 3, then (h, ug) 3, (p, ug) 1 before (hug, s) 1:
    # of equals the smaller ids go first, and p is 112, hug is 257.
    merges = bpe.train(["hug\nhug\npug\nhugs"], 4)
    assert merges == [(b"u", b"g"), (b"h", b"ug"), (b"p", b"ug"), (b"hug", b"s")]


def test_ties_go_to_the_smaller_first_byte_then_the_smaller_second():
    assert bpe.train(["zy.zx.yz"], 1) == [(b"y", b"z")]  # 'yz' before 'zx' and 'zy'
    assert bpe.train(["zy.zx"], 1) == [(b"z", b"x")]


def test_the_space_ranks_by_its_byte_and_not_by_its_place_among_the_ids():
    # The byte of " " is 32, less than "!" (33), although its id in GPT-2's order is 220.
    assert bpe.train([" !"], 1) == [(b" ", b"!")]
    assert bpe.train([" a", "!!"], 1) == [(b" ", b"a")]


@pytest.mark.parametrize(
    ("text", "merges"),
    [
        ("", []),
        ("a", []),
        ("aa", [(b"a", b"a")]),
        ("aaa", [(b"a", b"a"), (b"aa", b"a")]),
        ("aaaa", [(b"a", b"a"), (b"aa", b"aa")]),
        ("aaaaa", [(b"a", b"a"), (b"aa", b"a"), (b"aa", b"aaa")]),
    ],
)
def test_training_stops_when_every_piece_is_one_token(text, merges):
    assert bpe.train([text], 100) == merges


def test_no_merge_crosses_a_piece_or_a_text():
    merges = bpe.train(["ab ab", "a", "b"], 100)
    assert merges == [(b"a", b"b"), (b" ", b"ab")]


@given(st.lists(few_letters, max_size=6), st.randoms())
def test_the_order_of_the_texts_does_not_matter(texts, random):
    shuffled = random.sample(texts, len(texts))
    assert bpe.train(shuffled, 20) == bpe.train(texts, 20)


@given(st.lists(few_letters, max_size=6), st.integers(0, 20))
def test_fewer_merges_are_a_prefix_of_more(texts, n_merges):
    assert bpe.train(texts, n_merges) == bpe.train(texts, 20)[:n_merges]


def test_training_reports_its_progress():
    seen = []
    bpe.train(["low lower"], 3, progress=seen.append)
    assert seen == [1, 2, 3]


@given(st.text())
def test_the_pieces_of_a_text_join_to_it(text):
    assert "".join(bpe.split(text)) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("I'll've", ["I", "'ll", "'ve"]),
        ("x'S 'sun", ["x", "'", "S", " '", "sun"]),
        ("a  b", ["a", " ", " b"]),
        ("a \n\n b", ["a", " \n\n", " b"]),
        ("a \n", ["a", " \n"]),
        ("3.14abc", ["3", ".", "14", "abc"]),
        ("né²½", ["né", "²½"]),
        ("_a-b", ["_", "a", "-", "b"]),
        (" \u00a0x", [" ", "\u00a0", "x"]),
    ],
)
def test_where_a_text_is_cut(text, pieces):
    assert bpe.split(text) == pieces


def test_every_byte_has_a_printable_character_of_its_own():
    table = bpe.bytes_to_printable()
    assert sorted(table) == list(range(256))
    assert len(set(table.values())) == 256
    assert all(len(c) == 1 and c.isprintable() and not c.isspace() for c in table.values())
    assert list(table)[:3] == [33, 34, 35]  # ids 0, 1, 2 are ! " #
    assert list(table).index(32) == 220


@given(st.text())
def test_decoding_gives_the_text_back(text):
    encoder = bpe.BytePairEncoder(bpe.train(["low lower lowest\n" * 2], 10))
    ids = encoder.encode(text)
    assert encoder.decode(ids) == text
    assert encoder.decode_bytes(ids) == text.encode()


def test_lone_surrogates_are_refused_with_their_place():
    with pytest.raises(TokenizerError, match=r"character 2 .*'\\ud800'"):
        bpe.BytePairEncoder([]).encode("ab\ud800")
    with pytest.raises(TokenizerError, match="lone surrogate"):
        bpe.train(["fine", "\udfff"], 1)


def test_a_hundred_thousand_equal_letters_take_a_dozen_passes(monkeypatch):
    passes, merge_pair = [], bpe.merge_pair
    monkeypatch.setattr(
        bpe, "merge_pair", lambda ids, *pair: passes.append(pair) or merge_pair(ids, *pair)
    )
    encoder = bpe.BytePairEncoder([(b"a" * 2**k, b"a" * 2**k) for k in range(12)])
    ids = encoder.encode("a" * 100_000)
    assert encoder.decode(ids) == "a" * 100_000
    assert len(ids) == 100_000 // 4096 + (100_000 % 4096).bit_count()
    assert len(passes) == 12  # one for each merge, however often it applies
