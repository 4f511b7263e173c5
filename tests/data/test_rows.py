"""Rows from files of every kind, packed or not, whole or damaged."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from types import SimpleNamespace

import pytest

from cleangpt2.data import rows
from cleangpt2.data.rows import find_tables, read_rows
from cleangpt2.errors import DataError
from tests.helpers import require

ROWS = [{"prompt": f"q {n}", "completion": f'a, "{n}"\r\nété\n🦊'} for n in range(5)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def values(path):
    return [row.values for row in read_rows(str(path))]


def write_table(path, content=LINES):
    path.write_text(content, encoding="utf-8", newline="")
    return path


def as_csv(separator):
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ROWS[0], delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.ndjson", "\ufeff" + LINES.replace("\n", "\r\n\r\n")),
        ("a.json", json.dumps(ROWS, indent=2)),
        ("a.json", "\ufeff" + json.dumps({"data": ROWS})),
        ("a.json", LINES),  # JSON lines under another name
        ("a.csv", as_csv(",")),
        ("a.csv", "\ufeff" + as_csv(",")),  # as Excel writes it
        ("a.tsv", as_csv("\t")),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name, content):
    assert values(write_table(tmp_path / name, content)) == ROWS


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", LINES), ("a.csv", as_csv(","))])
def test_packed_files_are_read(tmp_path, module, name, content):
    suffix = {gzip: ".gz", bz2: ".bz2", lzma: ".xz"}[module]
    path = tmp_path / (name + suffix)
    path.write_bytes(module.compress(content.encode()))
    assert values(path) == ROWS


def test_zstandard_and_parquet_files_are_read(tmp_path):
    (tmp_path / "a.json.zst").write_bytes(require("zstandard").compress(json.dumps(ROWS).encode()))
    assert values(tmp_path / "a.json.zst") == ROWS
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    turns = [{"messages": [{"role": "user", "content": "a"}], "n": n} for n in range(3000)]
    parquet.write_table(arrow.Table.from_pylist(turns), tmp_path / "a.parquet", row_group_size=700)
    assert values(tmp_path / "a.parquet") == turns
    assert [row.place for row in read_rows(str(tmp_path / "a.parquet"))][-1] == "row 3000"


def test_a_data_set_of_the_hub_is_read(monkeypatch):
    stand_in = SimpleNamespace(load_dataset=lambda *_, **__: iter(ROWS))
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    assert find_tables(["hf:owner/name"]) == ["hf:owner/name"]
    assert values("hf:owner/name") == ROWS


def test_one_object_is_one_row(tmp_path):
    assert values(write_table(tmp_path / "a.json", json.dumps(ROWS[0]))) == ROWS[:1]
    with_list = {"conversations": [{"from": "human", "value": "a"}], "id": 3}
    assert values(write_table(tmp_path / "b.json", json.dumps(with_list))) == [with_list]


def test_a_text_is_one_row(tmp_path):
    assert values(write_table(tmp_path / "a.txt", "Once\nupon")) == [{"text": "Once\nupon"}]


def test_bad_lines_are_named_and_the_others_read(tmp_path):
    path = tmp_path / "a.jsonl"
    bad = [b"{broken", b"[1, 2]", b'{"prompt": "\xff"}', b"[" * 100_000, b'"a"', b"1" * 5000]
    path.write_bytes(b'{"a": 1}\n' + b"\n".join(bad) + b'\n\n{"a": 2}')
    read = list(read_rows(str(path)))
    assert [row.values for row in read] == [{"a": 1}, *[{}] * 6, {"a": 2}]
    assert [row.place for row in read] == [f"line {n}" for n in (1, 2, 3, 4, 5, 6, 7, 9)]
    reasons = ["not JSON (Expecting property name", "no object", "not UTF-8 (invalid start byte)"]
    reasons += ["JSON nested too deeply", "no object", "JSON nested too deeply"]
    for row, reason in zip(read[1:-1], reasons, strict=True):
        assert row.reason.startswith(f"is {reason}")


def test_rows_that_do_not_fit_the_header_are_named(tmp_path):
    path = write_table(tmp_path / "a.csv", "prompt,completion\na,b\nc\nd,e,f\n\ng,h\n")
    read = list(read_rows(str(path)))
    assert [(row.place, row.reason is None) for row in read] == [
        ("row 1", True), ("row 2", False), ("row 3", False), ("row 4", True),
    ]  # fmt: skip


def test_a_long_field_of_a_csv_is_read_and_the_limit_put_back(tmp_path):
    usual = csv.field_size_limit(1000)
    path = write_table(tmp_path / "a.csv", f"text\n{'a' * 300_000}\n")
    assert len(values(path)[0]["text"]) == 300_000
    assert csv.field_size_limit(usual) == 1000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"[{}, {]", r"a\.json is not JSON \(.* at character 6\)"),
        ("a.json", b"[1", r"a\.json is not JSON"),
        ("a.json", b"7", r"a\.json holds no rows; give a list"),
        ("a.csv", b'a,b\n"open,1\n', r"a\.csv, line 2, cannot be read as CSV"),
        ("a.csv", b"a,b\n\xff,1\n", r"a\.csv cannot be read \('utf-8' codec"),
        ("a.txt", b"\xff", r"a\.txt cannot be read"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz cannot be read"),
        ("a.jsonl.gz", gzip.compress(LINES.encode())[:-12], r"a\.jsonl\.gz cannot be read"),
    ],
)
def test_a_damaged_file_costs_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        values(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_json_file_larger_than_memory_should_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "LARGEST_JSON", 100)
    with pytest.raises(DataError, match="more than 100 bytes.*write it as JSON lines"):
        values(write_table(tmp_path / "a.json", json.dumps(ROWS)))


def test_a_folder_is_its_files_by_name(tmp_path):
    for name in ("b.jsonl", "a.json", "sub/c.csv", ".hidden.jsonl", ".cache/d.jsonl", "notes.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_tables([tmp_path])
    assert found == [(tmp_path / name).as_posix() for name in ("a.json", "b.jsonl", "sub/c.csv")]


def test_names_that_lead_nowhere(tmp_path):
    (tmp_path / "a.docx").touch()
    (tmp_path / "empty").mkdir()
    path = write_table(tmp_path / "a.jsonl")
    for names, message in {
        (): "no file of examples was named",
        (tmp_path / "none.jsonl",): "no file .*none.jsonl; give examples",
        (tmp_path / "a.docx",): "is of no kind that holds examples",
        (tmp_path / "empty",): "the folder .*empty holds no file that ends in .jsonl",
        (path, tmp_path): "is named twice",
        ("hf:owner",): "write hf:owner/name",
    }.items():
        with pytest.raises(DataError, match=message) as error:
            find_tables(names)
        assert "\n" not in str(error.value)
