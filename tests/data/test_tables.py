"""Parquet files and hub data sets; the latter with a stand-in for the hub's library."""

import sys
from types import SimpleNamespace

import pytest

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.corpus import Corpus
from cleangpt2.data.prepare import prepare
from cleangpt2.data.sources import HubName, parse_hub_name
from cleangpt2.errors import ConfigError, DataError
from tests.data.conftest import contents, documents, story
from tests.helpers import require

ALL = PrepareConfig(validation=0)
ROWS = [{"id": n, "text": story(n)} for n in range(200)]


class Rows(list):
    """As much of a streamed data set as is used."""

    def skip(self, n):
        return Rows(self[n:])


@pytest.fixture
def hub(monkeypatch):
    """A hub that serves ROWS, and what it was asked for."""
    asked = []

    def load_dataset(repo, config, *, split, streaming):
        asked.append((repo, config, split, streaming))
        if repo == "owner/none":
            raise FileNotFoundError("Dataset 'owner/none' doesn't exist on the Hub\nmore")
        return Rows(ROWS)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_a_data_set_of_the_hub_is_streamed(tokenizer, tmp_path, hub):
    prepare(["hf:owner/name:config/validation"], tokenizer, tmp_path / "out", ALL)
    assert hub == [("owner/name", "config", "validation", True)]
    assert documents(Corpus(tmp_path / "out"), tokenizer) == [row["text"] for row in ROWS]


def test_a_stream_that_breaks_off_goes_on_at_its_row(tokenizer, tmp_path, hub, monkeypatch):
    monkeypatch.setattr("cleangpt2.data.run.SAVE_EVERY_S", 0)
    monkeypatch.setattr("cleangpt2.data.reading.PIECE", 1000)
    prepare(["hf:owner/name"], tokenizer, tmp_path / "whole", ALL)

    def broken(*_, **__):
        yield from ROWS[:150]
        raise ConnectionError("the hub is gone")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["datasets"], "load_dataset", broken)
        with pytest.raises(DataError, match=r"cannot be read from the hub \(the hub is gone\)"):
            prepare(["hf:owner/name"], tokenizer, tmp_path / "out", ALL)
    skipped = []
    monkeypatch.setattr(Rows, "skip", lambda self, n: (skipped.append(n), Rows(self[n:]))[1])
    prepare(["hf:owner/name"], tokenizer, tmp_path / "out", ALL)
    assert skipped and skipped[0] > 50
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_data_set_that_is_not_there_costs_one_line(tokenizer, tmp_path, hub):
    with pytest.raises(DataError, match="hf:owner/none cannot be read .*doesn't exist") as error:
        prepare(["hf:owner/none"], tokenizer, tmp_path / "out", ALL)
    assert "\n" not in str(error.value)


def test_a_data_set_without_the_column_is_refused_and_another_column_may_follow(
    tokenizer, tmp_path, hub
):
    with pytest.raises(DataError, match="hf:owner/name has no column 'story', but id, text"):
        prepare(["hf:owner/name"], tokenizer, tmp_path / "out", PrepareConfig(key="story"))
    index = prepare(["hf:owner/name"], tokenizer, tmp_path / "out", PrepareConfig(key="text"))
    assert index.total("documents") == 200


def test_names_of_the_hub():
    assert parse_hub_name("hf:a/b") == HubName("a/b", None, "train")
    assert parse_hub_name("hf:a/b:c") == HubName("a/b", "c", "train")
    assert parse_hub_name("hf:a/b/test") == HubName("a/b", None, "test")
    for wrong in ("hf:", "hf:a", "hf:a/b:", "hf:../b c"):
        with pytest.raises(DataError, match="write hf:owner/name"):
            parse_hub_name(wrong)


@pytest.mark.parametrize(("name", "module"), [("hf:a/b", "datasets"), ("a.parquet", "pyarrow")])
def test_a_missing_extra_is_named(tokenizer, tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.parquet", None)
    if module == "pyarrow":
        (tmp_path / name).write_bytes(b"PAR1")
        name = str(tmp_path / name)
    with pytest.raises(ConfigError, match=r"needs the extra data: pip install 'cleangpt2\[data\]'"):
        prepare([name], tokenizer, tmp_path / "out", ALL)


# ---- Parquet ---------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """A Parquet file of ROWS in groups of 70, and a row without a text."""
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    columns = {"id": [row["id"] for row in ROWS], "text": [row["text"] for row in ROWS]}
    columns["text"][100] = None
    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table(columns), path, row_group_size=70)
    return path


def test_rows_of_parquet_are_documents(table, tokenizer, tmp_path):
    index = prepare([str(table)], tokenizer, tmp_path / "out", ALL)
    expected = [row["text"] for row in ROWS if row["id"] != 100]
    assert documents(Corpus(tmp_path / "out"), tokenizer) == expected
    assert index.bad == [f"{table}, line 101, has no text under 'text'"]


def test_parquet_goes_on_at_its_row(table, tokenizer, tmp_path, monkeypatch):
    from cleangpt2.data import run as module

    monkeypatch.setattr(module, "SAVE_EVERY_S", 0)
    monkeypatch.setattr("cleangpt2.data.reading.PIECE", 1000)
    prepare([str(table)], tokenizer, tmp_path / "whole", ALL)
    take, calls = module.Run.take, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        take(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.Run, "take", dying)
        prepare([str(table)], tokenizer, tmp_path / "out", ALL)
    prepare([str(table)], tokenizer, tmp_path / "out", ALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_parquet_that_is_none_or_lacks_the_column_is_refused(table, tokenizer, tmp_path):
    config = PrepareConfig(validation=0, key="story")
    with pytest.raises(DataError, match="has no column 'story', but id, text"):
        prepare([str(table)], tokenizer, tmp_path / "out", config)
    table.write_bytes(table.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        prepare([str(table)], tokenizer, tmp_path / "new", ALL)
