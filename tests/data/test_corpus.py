import gzip
import json

import pytest

from cleangpt2.data.corpus import read_all, read_texts
from cleangpt2.errors import DataError


@pytest.fixture
def rows(tmp_path):
    def write(name, lines):
        path = tmp_path / name
        opened = gzip.open if name.endswith(".gz") else open
        with opened(path, "wt", encoding="utf-8") as file:
            file.write("\n".join(lines))
        return path

    return write


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_is_a_document(rows, name):
    path = rows(name, [json.dumps({"text": "one"}), "", json.dumps({"text": "zwei ü"})])
    assert list(read_texts(path)) == ["one", "zwei ü"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "noending"])
def test_any_other_file_is_one_document(rows, name):
    assert list(read_texts(rows(name, ["one", "two"]))) == ["one\ntwo"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [("{broken", "not JSON"), ('["text"]', "no text"), ('{"text": 3}', "no text")],
)
def test_a_bad_line_is_named(rows, line, reason):
    path = rows("a.jsonl", ['{"text": "fine"}', line])
    with pytest.raises(DataError, match=f"line 2 .*{reason}"):
        list(read_texts(path))


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*missing\.txt"):
        list(read_texts(tmp_path / "missing.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin\.txt cannot be read as UTF-8"):
        list(read_texts(tmp_path / "latin.txt"))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"text" * 1000)[:-12])
    with pytest.raises(DataError, match=r"cut\.txt\.gz cannot be read"):
        list(read_texts(tmp_path / "cut.txt.gz"))


def test_a_corpus_without_text_is_refused(rows):
    with pytest.raises(DataError, match="no text in"):
        read_all([rows("empty.txt", ["  "])])
    with pytest.raises(DataError, match="empty list"):
        read_all([])
