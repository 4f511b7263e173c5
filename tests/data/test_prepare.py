"""`prepare`: every kind of input, and the same bytes whoever encodes them."""

import bz2
import gzip
import io
import json
import lzma
import random
import sys

import numpy as np
import pytest

from cleangpt2.data import cutting
from cleangpt2.data import run as module
from cleangpt2.data.batches import pack
from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.corpus import Corpus
from cleangpt2.data.index import read_index
from cleangpt2.data.prepare import prepare
from cleangpt2.errors import ConfigError, DataError, OutputError
from cleangpt2.tokenizer import Tokenizer
from tests.data.conftest import contents, documents, story
from tests.helpers import require

ALL = PrepareConfig(validation=0)


def texts_of(out, tokenizer, split="train"):
    return documents(Corpus(out), tokenizer, split)


# ---- what is written -----------------------------------------------------------------------


def test_a_folder_holds_what_pack_gives(corpus, tokenizer, tmp_path):
    index = prepare([str(corpus)], tokenizer, tmp_path / "out", ALL)
    row = Corpus(tmp_path / "out", tokenizer).train
    texts = [story(n) for n in range(300)] + [story(1000, words=3000)]
    packed = pack(texts, tokenizer)
    assert len(row) == len(packed) == index.tokens("train") + 1
    assert np.array_equal(row[:], packed)
    assert texts_of(tmp_path / "out", tokenizer) == texts
    assert index.total("lines") == 300 + (corpus / "c.txt").read_text("utf-8").count("\n")


@pytest.mark.parametrize("shard_tokens", [1, 50, 1000, 100_000])
def test_shards_are_cut_to_length_and_read_as_one_row(corpus, tokenizer, tmp_path, shard_tokens):
    name = str(corpus / ("c.txt" if shard_tokens < 60 else "a.jsonl"))
    config = PrepareConfig(validation=0, shard_tokens=shard_tokens)
    if shard_tokens == 1:
        (tmp_path / "few.txt").write_text("the fox ran", encoding="utf-8")
        name = str(tmp_path / "few.txt")
    index = prepare([name], tokenizer, tmp_path / "out", config)
    sizes = [shard.tokens for shard in index.splits["train"]]
    assert all(size == shard_tokens for size in sizes[:-1]) and 0 < sizes[-1] <= shard_tokens
    whole = prepare([name], tokenizer, tmp_path / "whole", ALL)
    assert sum(sizes) == whole.tokens("train")
    assert index.documents("train") == whole.documents("train")
    one, many = Corpus(tmp_path / "whole").train, Corpus(tmp_path / "out").train
    assert np.array_equal(one[:], many[:])
    rng = random.Random(0)
    for _ in range(50):
        start = rng.randrange(len(one))
        stop = rng.randrange(start, len(one) + 1)
        assert np.array_equal(one[start:stop], many[start:stop])


def test_starts_are_where_the_end_of_text_tokens_are(corpus, tokenizer, tmp_path):
    prepare([str(corpus)], tokenizer, tmp_path / "out", PrepareConfig(shard_tokens=500))
    for shards in Corpus(tmp_path / "out").shards.values():
        for shard in shards:
            assert np.array_equal(np.flatnonzero(shard.tokens == tokenizer.eos_id), shard.starts)


def test_llm_c_would_read_a_shard(corpus, tokenizer, tmp_path):
    index = prepare([str(corpus)], tokenizer, tmp_path / "out", ALL)
    file = tmp_path / "out/train-00000.bin"
    words = np.fromfile(file, "<i4", count=256)
    assert words[:3].tolist() == [20240520, 1, index.tokens("train")]
    assert file.stat().st_size == 1024 + 2 * words[2]
    assert np.array_equal(
        np.fromfile(file, "<u2", offset=1024), Corpus(tmp_path / "out").train[:-1]
    )


def test_a_large_vocabulary_takes_four_bytes_a_token(tokenizer, tmp_path):
    special = (f"<|{n}|>" for n in range(1 << 16))
    large = Tokenizer(tokenizer.vocabulary).add_special_tokens(*special)
    (tmp_path / "a.txt").write_text("the fox", encoding="utf-8")
    prepare([str(tmp_path / "a.txt")], large, tmp_path / "out", ALL)
    row = Corpus(tmp_path / "out", large).train
    assert row.dtype == np.uint32
    assert row[:].tolist() == [large.eos_id, *large.encode("the fox"), large.eos_id]
    assert np.fromfile(tmp_path / "out/train-00000.bin", "<i4", count=2).tolist() == [20240801, 7]


def test_tinyshakespeare_has_the_counts_of_llm_c_and_nanogpt(shared_data, tmp_path):
    tokenizer = Tokenizer.from_pretrained(shared_data / "gpt2")
    text = str(shared_data / "pretrain" / "tinyshakespeare.txt")
    config = PrepareConfig(validation=0, separator="\n\n", keep_separator=True)
    index = prepare([text], tokenizer, tmp_path / "llmc", config)
    assert index.tokens("train") == 338_028
    first = [50256, 5962, 22307, 25, 198, 8421, 356, 5120, 597, 2252, 11, 3285, 502, 2740, 13, 628]
    assert Corpus(tmp_path / "llmc").train[:18].tolist() == [*first, 50256, 3237]
    one_pass = prepare([text], tokenizer, tmp_path / "one", ALL)
    assert one_pass.tokens("train") == 338_025 + 1  # the end-of-text token before it


# ---- whoever encodes, and in how many pieces -------------------------------------------------


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "PIECE", 3000)
    monkeypatch.setattr("cleangpt2.data.reading.PIECE", 3000)
    config = PrepareConfig(validation=0.1, shard_tokens=3000, dedupe=True)
    for workers in (1, 2, 3):
        prepare([str(corpus)], tokenizer, tmp_path / f"out{workers}", config, workers=workers)
    one = contents(tmp_path / "out1")
    assert len(one) > 8
    assert contents(tmp_path / "out2") == one
    assert contents(tmp_path / "out3") == one


@pytest.mark.parametrize("size", [64, 333, 5000])
@pytest.mark.parametrize("packed", [False, True])
def test_where_files_are_cut_does_not_show(corpus, tokenizer, tmp_path, monkeypatch, size, packed):
    config = PrepareConfig(validation=0.3, separator=" hills", keep_separator=True)
    if packed:
        (corpus / "c.txt.xz").write_bytes(lzma.compress((corpus / "c.txt").read_bytes()))
        (corpus / "c.txt").unlink()
    (corpus / "d.txt").write_text(story(2000, words=2000).replace(" hills", ""), encoding="utf-8")
    monkeypatch.setattr("cleangpt2.data.encoding.HEAD", 8)  # shorter than any piece
    prepare([str(corpus)], tokenizer, tmp_path / "whole", config)
    monkeypatch.setattr(cutting, "PIECE", size)
    monkeypatch.setattr("cleangpt2.data.reading.PIECE", size)
    prepare([str(corpus)], tokenizer, tmp_path / "cut", config)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


# ---- every kind of input ---------------------------------------------------------------------

STORIES = [story(n).strip() for n in range(20)]
JSONL = "".join(json.dumps({"text": text}) + "\n" for text in STORIES).encode()


@pytest.mark.parametrize(
    ("name", "content", "config"),
    [
        ("a.jsonl", JSONL, ALL),
        ("a.ndjson", JSONL.rstrip(), ALL),
        ("A.JSONL", JSONL.replace(b"\n", b"\r\n\r\n"), ALL),
        ("a.jsonl.gz", gzip.compress(JSONL, mtime=0), ALL),
        ("a.jsonl.bz2", bz2.compress(JSONL), ALL),
        ("a.jsonl.xz", lzma.compress(JSONL), ALL),
        ("a.txt", "<|endoftext|>".join(STORIES).encode(), "<|endoftext|>"),
        ("a.txt", "\n<|endoftext|>\n".join(STORIES).encode(), "<|endoftext|>"),
        ("a.txt.gz", gzip.compress("\0".join([*STORIES, ""]).encode(), mtime=0), "\0"),
        ("a.md", "---".join(STORIES).replace("\n", "\r\n").encode(), "---"),
    ],
)
def test_every_kind_of_file_gives_its_documents(tokenizer, tmp_path, name, content, config):
    (tmp_path / name).write_bytes(content)
    if isinstance(config, str):
        config = PrepareConfig(validation=0, separator=config)
    prepare([str(tmp_path / name)], tokenizer, tmp_path / "out", config)
    assert texts_of(tmp_path / "out", tokenizer) == STORIES


def test_zstandard_where_it_is_installed(tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(ConfigError, match="pip install zstandard"):
        prepare([str(path)], tokenizer, tmp_path / "out", ALL)
    monkeypatch.undo()
    zstandard = require("zstandard")
    path.write_bytes(zstandard.compress(JSONL))
    prepare([str(path)], tokenizer, tmp_path / "out", ALL, fresh=True)
    assert texts_of(tmp_path / "out", tokenizer) == STORIES


def test_a_folder_gives_its_files_by_name_and_no_others(tokenizer, tmp_path):
    folder = tmp_path / "books"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    for name, text in {
        "b.txt": "two", "a.txt": "one", "deep/c.txt": "three", "x.png": "no",
        ".d.txt": "no", "deep/.hidden/e.txt": "no",
    }.items():  # fmt: skip
        (folder / name).write_text(text, encoding="utf-8")
    prepare([str(folder)], tokenizer, tmp_path / "out", ALL)
    assert texts_of(tmp_path / "out", tokenizer) == ["one", "two", "three"]


@pytest.mark.parametrize(("kind", "data"), [("text", b"one\n\ntwo"), ("jsonl", JSONL)])
def test_standard_input(tokenizer, tmp_path, monkeypatch, kind, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    config = PrepareConfig(validation=0, stdin=kind)
    prepare(["-"], tokenizer, tmp_path / "out", config)
    expected = ["one\n\ntwo"] if kind == "text" else STORIES
    assert texts_of(tmp_path / "out", tokenizer) == expected


@pytest.mark.parametrize(
    ("row", "key", "found"),
    [
        ({"id": 1, "text": "a", "title": "b"}, None, "a"),
        ({"id": 1, "story": "a"}, None, "a"),
        ({"story": "a", "title": "b"}, "title", "b"),
    ],
)
def test_the_column_is_found_or_named(tokenizer, tmp_path, row, key, found):
    (tmp_path / "a.jsonl").write_text("{broken\n" + json.dumps(row), encoding="utf-8")
    config = PrepareConfig(validation=0, key=key)
    prepare([str(tmp_path / "a.jsonl")], tokenizer, tmp_path / "out", config)
    assert texts_of(tmp_path / "out", tokenizer) == [found]


def test_a_column_that_is_not_there_is_refused_before_any_work(tokenizer, tmp_path):
    rows = "broken\n" + '{"id": 1, "text": "a"}\n' * 200
    (tmp_path / "a.jsonl").write_text(rows, encoding="utf-8")
    config = PrepareConfig(validation=0, key="story")
    with pytest.raises(DataError, match=r"a.jsonl has no column 'story', but id, text$"):
        prepare([str(tmp_path / "a.jsonl")], tokenizer, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_a_column_in_doubt_is_asked_for(tokenizer, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"story": "a", "title": "b"}', encoding="utf-8")
    with pytest.raises(DataError, match="columns story, title: name the one to read with --key"):
        prepare([str(tmp_path / "a.jsonl")], tokenizer, tmp_path / "out", ALL)


# ---- which documents -------------------------------------------------------------------------


def test_the_held_out_documents_are_the_same_in_any_order_and_company(tokenizer, tmp_path):
    config = PrepareConfig(validation=0.2)
    files = []
    for part in range(3):
        path = tmp_path / f"{part}.jsonl"
        rows = [json.dumps({"text": story(n)}) for n in range(part * 100, part * 100 + 100)]
        path.write_text("\n".join(rows), encoding="utf-8")
        files.append(str(path))
    held = {}
    for name, chosen in {"two": files[:2], "turned": files[1::-1], "more": files}.items():
        prepare(chosen, tokenizer, tmp_path / name, config)
        held[name] = set(texts_of(tmp_path / name, tokenizer, "validation"))
    assert held["two"] == held["turned"] < held["more"]
    assert 30 < len(held["more"]) < 90
    assert not held["more"] & set(texts_of(tmp_path / "more", tokenizer))


def test_the_held_out_share_grows_with_its_setting(tokenizer, corpus, tmp_path):
    before = set()
    for share in (0.05, 0.3, 0.9):
        out = tmp_path / str(share)
        prepare([str(corpus)], tokenizer, out, PrepareConfig(validation=share))
        held = set(texts_of(out, tokenizer, "validation"))
        assert before < held
        assert abs(len(held) / 301 - share) < 0.1
        before = held


def test_duplicates_are_left_out_once_asked_for(tokenizer, tmp_path, monkeypatch):
    rows = [story(n % 40) for n in range(100)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in rows))
    (tmp_path / "b.txt").write_text(story(7), encoding="utf-8")
    names = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt")]
    monkeypatch.setattr(cutting, "PIECE", 1000)
    config = PrepareConfig(validation=0, dedupe=True)
    index = prepare(names, tokenizer, tmp_path / "out", config)
    assert texts_of(tmp_path / "out", tokenizer) == rows[:40]
    assert [(s.documents, s.duplicates) for s in index.sources] == [(40, 60), (0, 1)]
    both = prepare(names, tokenizer, tmp_path / "both", ALL)
    assert both.documents("train") == 101


def test_documents_that_begin_alike_are_no_duplicates(tokenizer, tmp_path):
    rows = [f"the same beginning of every text, and number {n}" for n in range(200)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in rows))
    config = PrepareConfig(validation=0.5, dedupe=True)
    index = prepare([str(tmp_path / "a.jsonl")], tokenizer, tmp_path / "out", config)
    assert index.total("duplicates") == 0
    assert 60 < index.documents("validation") < 140


def test_empty_documents_are_counted_and_left_out(tokenizer, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": " \\n"}\n{"text": "x"}\n{"text": ""}\n')
    index = prepare([str(tmp_path / "a.jsonl")], tokenizer, tmp_path / "out", ALL)
    assert (index.total("empty"), index.total("documents"), index.tokens("train")) == (2, 1, 2)


# ---- bad lines -------------------------------------------------------------------------------

BAD = b"""\
{"text": "one"}
{"text": 3}

{"text"
{"text": "\xff"}
{"text": "\\ud83d"}
{"text": "two"}
[1]
"""


@pytest.mark.parametrize("size", [1, 20, 10_000])
def test_bad_lines_are_counted_named_and_left_out(tokenizer, tmp_path, monkeypatch, size):
    monkeypatch.setattr(cutting, "PIECE", size)
    (tmp_path / "a.jsonl").write_bytes(BAD)
    said = []
    name = str(tmp_path / "a.jsonl")
    index = prepare([name], tokenizer, tmp_path / "out", ALL, warn=said.append)
    assert texts_of(tmp_path / "out", tokenizer) == ["one", "two"]
    assert [line.split(", ")[1] for line in said] == [f"line {n}" for n in (2, 4, 5, 6, 8)]
    assert all(line.startswith(name) for line in said)
    assert index.total("bad") == 5
    assert index.bad == said == read_index(tmp_path / "out").bad


def test_strict_refuses_the_first_bad_line(tokenizer, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(BAD)
    config = PrepareConfig(validation=0, strict=True)
    with pytest.raises(DataError, match="line 2, has no text under 'text'; without --strict"):
        prepare([str(tmp_path / "a.jsonl")], tokenizer, tmp_path / "out", config)


def test_a_text_that_is_no_utf8_is_named_by_its_line(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"one|t\nwo\xff|thr\nee|four\xc3")
    config = PrepareConfig(validation=0, separator="|")
    index = prepare([str(tmp_path / "a.txt")], tokenizer, tmp_path / "out", config)
    assert texts_of(tmp_path / "out", tokenizer) == ["one", "thr\nee"]
    assert [line.split(", ")[1] for line in index.bad] == ["line 2", "line 3"]


def test_a_long_text_ends_where_it_is_damaged(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "PIECE", 100)
    good = " ".join(f"word{n}" for n in range(100)).encode()
    (tmp_path / "a.txt").write_bytes(good + b" \xff " + good)
    (tmp_path / "b.txt").write_bytes(good)
    index = prepare(
        [str(tmp_path / n) for n in ("a.txt", "b.txt")], tokenizer, tmp_path / "out", ALL
    )
    cut, whole = texts_of(tmp_path / "out", tokenizer)
    assert whole == good.decode()
    assert whole.startswith(cut) and len(whole) - len(cut) < 120
    assert index.total("bad") == 1


# ---- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("none.txt", None, "cannot be read"),
        ("empty.txt", b"", "no document in .*empty.txt"),
        ("a.jsonl", b"{\n{\n", "no document in .*line 1, is not JSON"),
        ("a.txt.gz", b"not gzip", "cannot be read to its end"),
        ("a.txt.xz", lzma.compress(b"abc" * 999)[:-9], "cannot be read to its end"),
    ],
)
def test_a_corpus_that_is_none_is_refused(tokenizer, tmp_path, name, content, complaint):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint) as error:
        prepare([str(tmp_path / name)], tokenizer, tmp_path / "out", ALL)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_what_memory_should_not_hold_is_refused(tokenizer, tmp_path, monkeypatch, name):
    monkeypatch.setattr(cutting, "PIECE", 100)
    monkeypatch.setattr(cutting, "LIMIT", 1000)
    (tmp_path / name).write_bytes(b"x" * 5000)
    with pytest.raises(DataError, match=f"{name} cannot be read to its end .*1,000 bytes or more"):
        prepare([str(tmp_path / name)], tokenizer, tmp_path / "out", PrepareConfig(key="text"))


def test_a_file_named_twice_is_refused(corpus, tokenizer, tmp_path):
    names = [str(corpus), str(corpus / "a.jsonl")]
    with pytest.raises(DataError, match="a.jsonl is named twice"):
        prepare(names, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_refused(tokenizer, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder .*empty holds no corpus"):
        prepare([str(tmp_path / "empty")], tokenizer, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"validation": 1.0}, "validation is 1.0"),
        ({"validation": float("nan")}, "validation is nan"),
        ({"shard_tokens": 0}, "shard_tokens is 0"),
        ({"separator": ""}, "separator is ''"),
        ({"keep_separator": True}, "needs a separator"),
    ],
)
def test_settings_out_of_range_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        PrepareConfig(**settings)


def test_a_disk_that_fills_up_leaves_what_can_go_on(corpus, tokenizer, tmp_path, monkeypatch):
    prepare([str(corpus)], tokenizer, tmp_path / "whole", PrepareConfig(shard_tokens=2000))
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0)
    monkeypatch.setattr("cleangpt2.data.reading.PIECE", 2000)
    with monkeypatch.context() as patch:
        finish = module.ShardWriter.finish

        def full(self):
            if len(self.shards) == 2:
                raise OSError(28, "No space left on device")
            finish(self)

        patch.setattr(module.ShardWriter, "finish", full)
        with pytest.raises(OutputError, match="No space left on device; make room"):
            prepare([str(corpus)], tokenizer, tmp_path / "out", PrepareConfig(shard_tokens=2000))
    prepare([str(corpus)], tokenizer, tmp_path / "out", PrepareConfig(shard_tokens=2000))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
