"""Tokens into text: where it stops, and what is held back until it is certain."""

from hypothesis import example, given
from hypothesis import strategies as st

from cleangpt2.completion.reader import Reader
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.vocabulary import Vocabulary

# Tokens that end inside characters and inside stop strings: "abc", half an emoji, "b" + a quarter.
SPLITS = Tokenizer(
    Vocabulary.from_merges(
        [(b"a", b"b"), (b"ab", b"c"), (b"c", b"a"), (b"\xf0", b"\x9f"), (b"b", b"\xf0"),
         (b"\x99", b"\x82"), (b"\x99\x82", b"c")]
    )
)  # fmt: skip
IDS = [SPLITS.encode(text)[0] for text in "abc"] + list(range(256, 263))
BYTES = {SPLITS.token_bytes(id)[0]: id for id in range(256)}
IDS += [BYTES[byte] for byte in "🙂".encode()]
STOPS = st.lists(st.text("abc🙂", min_size=1, max_size=5), max_size=3)


def read(ids, stops):
    """The pieces that a reader gives out, the reader, and how many ids it was given."""
    reader, pieces = Reader(SPLITS, stops), []
    for n, id in enumerate(ids, start=1):
        pieces.append(reader.push(id))
        if reader.stopped:
            return pieces, reader, n
    return [*pieces, reader.finish()], reader, len(ids)


def cut(text, stops):
    """The text before the stop string that is complete first, the longest of several."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(ends)[1]] if ends else text


@example(SPLITS.encode("abc"), ["abc", "b"])  # one token; "b" is complete before "abc" is
@example(SPLITS.encode("abc"), ["bc", "abc"])
@given(st.lists(st.sampled_from(IDS), max_size=14), STOPS)
def test_a_reader_stops_where_the_whole_text_does(ids, stops):
    pieces, reader, _ = read(ids, stops)
    text = SPLITS.decode(ids)
    assert "".join(pieces) == reader.text == cut(text, stops)
    assert reader.stopped == any(stop in text for stop in stops)


@given(st.text("abc🙂", max_size=12), STOPS)
def test_a_reader_does_not_care_where_tokens_end(text, stops):
    for ids in (SPLITS.encode(text), [BYTES[byte] for byte in text.encode()]):
        assert read(ids, stops)[1].text == cut(text, stops)


@given(st.lists(st.sampled_from(IDS), max_size=14), STOPS)
def test_a_reader_holds_back_only_the_beginning_of_a_stop_string(ids, stops):
    reader = Reader(SPLITS, stops)
    for n, id in enumerate(ids, start=1):
        reader.push(id)
        if reader.stopped:
            return
        sure = SPLITS.stream_decoder()
        held = "".join(map(sure.push, ids[:n])).removeprefix(reader.text)
        assert held == "" or any(s.startswith(held) and s != held for s in stops)
