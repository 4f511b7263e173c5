"""Streaming gives whole characters, and in the end what decoding all at once gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.tokenizer import StreamDecoder


def stream(decoder, ids):
    return [decoder.push(i) for i in ids] + [decoder.finish()]


@given(text=st.text())
def test_no_part_of_a_text_holds_half_a_character(tokenizer, text):
    ids = tokenizer.encode(text)
    parts = stream(tokenizer.stream_decoder(), ids)
    assert "".join(parts) == text
    assert parts[-1] == ""
    whole = b""
    for i, part in zip(ids, parts, strict=False):
        whole += tokenizer.token_bytes(i)
        assert whole.startswith(part.encode())  # nothing that the bytes so far do not hold
        whole = whole[len(part.encode()) :]
        assert len(whole) < 4


@given(ids=st.lists(st.integers(0, 319)))
def test_any_ids_stream_to_what_they_decode_to(tokenizer, ids):
    assert "".join(stream(tokenizer.stream_decoder(), ids)) == tokenizer.decode(ids)


@given(st.lists(st.binary(max_size=3)))
def test_any_bytes_stream_to_what_they_decode_to(tokens):
    parts = stream(StreamDecoder(tokens.__getitem__), range(len(tokens)))
    assert "".join(parts) == b"".join(tokens).decode("utf-8", errors="replace")


def test_a_character_waits_for_its_last_byte():
    tokens = [bytes([byte]) for byte in "👍".encode()]
    decoder = StreamDecoder(tokens.__getitem__)
    assert stream(decoder, range(4)) == ["", "", "", "👍", ""]


def test_stopping_inside_a_character_shows_at_the_end_and_starts_afresh():
    decoder = StreamDecoder([b"\xf0\x9f", b"ok"].__getitem__)
    assert stream(decoder, [0]) == ["", "\ufffd"]
    assert stream(decoder, [1]) == ["ok", ""]


@pytest.mark.parametrize("text", ["é", "Zoë 👍🏽", "我们"])
def test_a_stream_of_single_bytes_is_the_text(tokenizer, text):
    plain = {bytes([byte]): i for i, byte in enumerate(range(256))}
    ids = [plain[bytes([byte])] for byte in text.encode()]
    decoder = StreamDecoder(lambda i: bytes([i]))
    assert "".join(stream(decoder, ids)) == text
