"""Texts from files, and what is refused."""

import bz2
import gzip
import json
import lzma

import pytest

from cleangpt2.errors import DataError
from cleangpt2.texts import read_all, read_texts

ROWS = [{"text": "one"}, {"text": "zwei é\n", "id": 2}]
PACKINGS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
JSONL = "\n".join(json.dumps(row) for row in ROWS) + "\n\n"


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.txt", "one\r\n\ntwo é", ["one\n\ntwo é"]),
        ("a.jsonl", JSONL, ["one", "zwei é\n"]),
        ("a.ndjson", JSONL, ["one", "zwei é\n"]),
        ("a.b.jsonl", JSONL, ["one", "zwei é\n"]),
        ("README", "x", ["x"]),
    ],
)
@pytest.mark.parametrize("packing", PACKINGS)
def test_plain_text_is_one_document_and_jsonl_one_a_line(tmp_path, name, content, texts, packing):
    path = tmp_path / (name + packing)
    path.write_bytes(PACKINGS[packing](content.encode()))
    assert list(read_texts(path)) == texts


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("a.txt", b"\xff\xfe", "UTF-8"),
        ("a.txt.gz", b"not gzip", "cannot be read"),
        ("a.txt.gz", gzip.compress(b"hello" * 99, mtime=0)[:-9], "cannot be read"),
        ("a.jsonl", b'{"text": "x"}\n{"txt": "x"}', "line 2, has no text under 'text'"),
        ("a.jsonl", b'{"text": 3}', "line 1, has no text"),
        ("a.jsonl", b"[1]", "line 1, has no text"),
        ("a.jsonl", b"{", "line 1, is not JSON"),
        ("a.jsonl", b'{"text": "x"} {"text": "y"}', "line 1, is not JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1, is JSON nested too deeply"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\\ud83d"}', r"line 2, .* lone surrogate '\\ud83d'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # some bytes are long
)
def test_broken_files_are_refused_by_name(tmp_path, name, data, complaint):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=complaint) as error:
        list(read_texts(tmp_path / name))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            list(read_texts(path))


def test_another_key_can_hold_the_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"story": "s"}', encoding="utf-8")
    assert list(read_texts(tmp_path / "a.jsonl", key="story")) == ["s"]


def test_the_texts_of_several_files_less_the_empty_ones(tmp_path):
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": " "}\n{"text": "two"}', encoding="utf-8")
    assert read_all([tmp_path / "a.txt", tmp_path / "b.jsonl"]) == ["one", "two"]


def test_a_corpus_without_text_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("  ", encoding="utf-8")
    with pytest.raises(DataError, match=r"no text in .*empty\.txt"):
        read_all([tmp_path / "empty.txt"])
    with pytest.raises(DataError, match="empty list"):
        read_all([])
