import errno
import os

import pytest

from cleangpt2.errors import OutputError
from cleangpt2.files import check_writable, written_aside


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_move_in_together_and_others_stay(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "a").write_text("before")
    with written_aside(tmp_path) as scratch:
        (scratch / "a").write_text("after")
        (scratch / "b").write_text("new")
        assert contents_of_files(tmp_path) == {"old": "old", "a": "before"}
    assert contents(tmp_path) == {"old": "old", "a": "after", "b": "new"}


def contents_of_files(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC])
def test_a_failure_is_named_and_leaves_nothing(tmp_path, monkeypatch, code):
    (tmp_path / "a").write_text("before")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("cleangpt2.files.os.fsync", fail)
    for folder in (tmp_path, tmp_path / "new" / "deep"):
        with (
            pytest.raises(OutputError, match=f"cannot write to .*{os.strerror(code)}"),
            written_aside(folder) as scratch,
        ):
            (scratch / "a").write_text("after")
    assert contents(tmp_path) == {"a": "before"}


def test_an_error_of_the_block_itself_passes_through(tmp_path):
    with pytest.raises(ZeroDivisionError), written_aside(tmp_path / "new") as scratch:
        (scratch / "a").write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file is no folder"):
        check_writable(tmp_path / "file" / "deep")
    monkeypatch.setattr("cleangpt2.files.os.access", lambda *_: False)
    with pytest.raises(OutputError, match="no folder that you may write to"):
        check_writable(tmp_path / "new")
