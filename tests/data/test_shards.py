"""What a shard must be: damaged ones are refused by name, whatever was done to them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.corpus import Corpus, TokenRow, is_prepared
from cleangpt2.data.prepare import prepare
from cleangpt2.data.shards import Identity, ShardInfo, header, parse_header
from cleangpt2.errors import DataError
from cleangpt2.tokenizer import Tokenizer
from tests.data.conftest import documents, story


@pytest.fixture(scope="module")
def prepared(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for n in range(40):
        (folder / f"{n:02}.txt").write_text(story(n), encoding="utf-8")
    config = PrepareConfig(shard_tokens=500, validation=0.2)
    prepare([str(folder)], tokenizer, folder / "out", config, tokenizer_name="mine")
    return folder / "out"


@pytest.fixture
def folder(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_header_comes_back_as_it_was(tmp_path):
    identity = Identity(50257, 50256, "ab" * 32)
    info = ShardInfo("train-00000", 12345, 67, "cd" * 32, "ef" * 32)
    assert parse_header(header(info, identity), info.name, tmp_path) == (info, identity)
    wide = replace(identity, vocab_size=70_000)
    assert parse_header(header(info, wide), info.name, tmp_path) == (info, wide)
    assert (identity.dtype, wide.dtype) == (np.uint16, np.uint32)


def change(path, place, value):
    content = bytearray(path.read_bytes())
    content[place : place + 4] = np.int32(value).tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cut off after 0 bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:1023]), "cut off after 1023 bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 2,023 bytes; 500 tokens"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "has 2,025 bytes; 500 tokens"),
        (lambda path: change(path, 0, 0), "is no shard of"),
        (lambda path: change(path, 12, 0), "is no shard of"),
        (lambda path: change(path, 16, 9), "has version 9, this program reads 1"),
        (lambda path: change(path, 8, 499), "contradicts index.json"),
        (lambda path: change(path, 8, -1), "contradicts itself"),
        (lambda path: change(path, 20, 99), "contradicts index.json"),
        (lambda path: change(path, 24, 299), "is of another vocabulary"),
        (lambda path: change(path, 24, 1 << 20), "contradicts itself"),
        (lambda path: change(path, 64, 7), "is of another vocabulary"),
        (lambda path: change(path, 1000, 7), "contradicts itself"),
        (lambda path: path.with_suffix(".starts").unlink(), "starts is missing"),
        (lambda path: path.with_suffix(".starts").write_bytes(b"12"), "starts has 2 bytes"),
    ],
)
def test_a_damaged_shard_is_refused_when_it_is_opened(folder, damage, complaint):
    Corpus(folder)
    damage(folder / "train-00001.bin")
    with pytest.raises(DataError, match=complaint) as error:
        Corpus(folder)
    assert "train-00001" in str(error.value)
    assert "cleangpt2 data prepare ... --fresh" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["train-00001.bin", "validation-00000.starts"])
def test_a_flipped_bit_is_found_on_demand(folder, name):
    Corpus(folder).verify()
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    corpus = Corpus(folder)  # header and sizes are right
    with pytest.raises(DataError, match=f"{name} has sha256 .* it is damaged"):
        corpus.verify()


def test_a_shard_of_another_folder_is_refused(folder, tokenizer, tmp_path):
    other = tokenizer.add_special_tokens("<|other|>")
    (tmp_path / "a.txt").write_text("the fox", encoding="utf-8")
    prepare([str(tmp_path / "a.txt")], other, tmp_path / "other", PrepareConfig(validation=0))
    shutil.copy(tmp_path / "other/train-00000.bin", folder / "train-00000.bin")
    with pytest.raises(DataError, match=r"train-00000.bin is of another vocabulary \(301 ids"):
        Corpus(folder)


def test_another_tokenizer_is_refused(folder, tokenizer):
    Corpus(folder, tokenizer)
    other = Tokenizer.train([story(n) for n in range(60, 90)], 300, ("<|endoftext|>", "<|pad|>"))
    with pytest.raises(DataError, match=r"holds ids of 'mine' \(300 ids.*name the tokenizer"):
        Corpus(folder, other)


def test_the_folder_brings_its_vocabulary(folder, tokenizer):
    own = Corpus(folder).tokenizer()
    assert own.vocabulary.ids == tokenizer.vocabulary.ids
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\nt h\n")
    (folder / "tokenizer/vocab.json").unlink()
    with pytest.raises(DataError, match="holds ids of 'mine'"):
        Corpus(folder).tokenizer()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"format": 1}'],
)
def test_a_damaged_index_is_refused(folder, content):
    (folder / "index.json").write_text(content)
    with pytest.raises(DataError, match=r"index.json cannot be used .*--fresh"):
        Corpus(folder)


def test_the_index_of_another_version_says_what_to_update(folder):
    (folder / "index.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match=r"index.json has format 2, this program reads 1: update"):
        Corpus(folder)


def test_a_finished_folder_that_was_damaged_is_not_called_finished(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("the fox", encoding="utf-8")
    names, out = [str(tmp_path / "a.txt")], tmp_path / "out"
    prepare(names, tokenizer, out, PrepareConfig(validation=0))
    whole = (out / "train-00000.bin").read_bytes()
    (out / "train-00000.bin").write_bytes(whole[:-1])
    with pytest.raises(DataError, match="train-00000.bin has .* tokens take"):
        prepare(names, tokenizer, out, PrepareConfig(validation=0))
    prepare(names, tokenizer, out, PrepareConfig(validation=0), fresh=True)
    assert (out / "train-00000.bin").read_bytes() == whole


def test_shards_without_their_index_are_a_prepared_folder(folder):
    (folder / "index.json").unlink()
    assert is_prepared(folder)
    with pytest.raises(DataError, match="holds no index.json: make it with"):
        Corpus(folder)


def test_an_index_cannot_lead_out_of_its_folder(folder):
    text = (folder / "index.json").read_text("utf-8")
    (folder / "index.json").write_text(text.replace("train-00000", "../train-00000"))
    with pytest.raises(DataError, match="no name of a shard"):
        Corpus(folder)


def test_a_folder_that_is_not_finished_is_refused(folder, tmp_path):
    (folder / "index.json").rename(folder / ".progress.json")
    assert is_prepared(folder)
    with pytest.raises(DataError, match="is not finished: run the"):
        Corpus(folder)
    assert not is_prepared(tmp_path)
    with pytest.raises(DataError, match="holds no index.json"):
        Corpus(tmp_path)


def test_a_row_of_tokens_reads_like_an_array(folder):
    row = Corpus(folder).train
    whole = row[:]
    assert len(whole) == len(row)
    assert row[-1:].tolist() == whole[:1].tolist() == [row.eos_id]
    for place in (slice(0, 0), slice(490, 510), slice(3, 1600), slice(-5, None), slice(9999, None)):
        assert row[place].tolist() == whole[place].tolist()
    with pytest.raises(DataError, match="steps of 1"):
        row[::2]
    empty = TokenRow([], 0)
    assert (len(empty), len(empty[:10])) == (0, 0)


def test_held_out_texts_are_whole_documents(folder, tokenizer):
    corpus = Corpus(folder)
    everything = documents(corpus, tokenizer, "validation")
    assert corpus.held_out(tokenizer) == everything
    few = corpus.held_out(tokenizer, tokens=200)
    assert 0 < len(few) < len(everything)
    assert few == everything[: len(few)]
    (part,) = corpus.held_out(tokenizer, tokens=10)
    assert everything[0].startswith(part)
