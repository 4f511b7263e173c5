"""From parts to documents: in bytes, as if each text had been read on its own."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.documents import Count, documents_of
from cleangpt2.data.reading import Part


def found(content, kind="text", whole=True, **settings):
    count = Count(0)
    part = Part(0, kind, content, "text", 0)
    return documents_of(part, PrepareConfig(**settings), count, whole=whole), count


def as_read_from_files(text, separator, keep):
    """The documents of a text, in the plainest way."""
    documents = text.split(separator)
    ends = [separator] * (len(documents) - 1) + [""]
    if not documents[-1]:
        documents, ends = documents[:-1], ends[:-1]
    if keep:
        documents = [document + end for document, end in zip(documents, ends, strict=True)]
    elif not separator.isspace():
        documents = [document.strip("\r\n") for document in documents]
    documents = [text.replace("\r\n", "\n").replace("\r", "\n") for text in documents]
    return [document for document in documents if document and not document.isspace()]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("separator", ["--", "\n\n", "é"])
@given(text=st.text(st.sampled_from("aé我 \n\r-\u00a0\x1c"), max_size=30))
def test_bytes_are_split_as_text_would_be(separator, keep, text):
    texts, count = found(text.encode(), separator=separator, keep_separator=keep)
    assert texts == [t.encode() for t in as_read_from_files(text, separator, keep)]
    assert count.documents == len(texts)
    assert count.lines == text.count("\n")


def test_a_separator_that_overlaps_itself_stays_with_its_document():
    texts, _ = found(b"xaaa", separator="aa", keep_separator=True)
    assert texts == [b"xaa", b"a"]


def test_white_space_counts_inside_a_long_document():
    assert found(b" \n")[0] == []
    assert found(b" \n")[1].empty == 1
    assert found(b" \n", whole=False)[0] == [b" \n"]


def test_a_document_that_is_no_text_is_named_and_its_neighbours_stay():
    content = b"one\n--\ntwo\n\xff--three"
    texts, count = found(content, separator="--")
    assert texts == [b"one", b"three"]
    assert [tuple(bad) for bad in count.named] == [(4, "is not UTF-8 (invalid start byte)")]
    assert (count.bad, count.documents, count.lines) == (1, 2, 3)


def test_lines_of_json_are_read_one_by_one():
    rows = [{"text": "one"}, {"text": "zwölf"}, {"other": 1}, {"text": " "}]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    texts, count = found(b"\n".join([*lines, b"", b'{"text": "\xff"}', b"{"]), kind="jsonl")
    assert texts == [b"one", "zwölf".encode()]
    assert [bad.line for bad in count.named] == [3, 6, 7]
    assert (count.empty, count.bad, count.lines) == (1, 3, 6)


def test_only_so_many_bad_lines_are_named_and_all_are_counted():
    _, count = found(b"{\n" * 250, kind="jsonl")
    assert (count.bad, len(count.named)) == (250, 100)
