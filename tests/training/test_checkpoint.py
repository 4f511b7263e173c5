import pytest
import torch

from cleangpt2.errors import OutputError
from cleangpt2.training import checkpoint


def test_the_newest_comes_back(tmp_path):
    for step in (5, 10, 100):
        checkpoint.save(tmp_path, step, {"step": step, "x": torch.arange(step)})
    assert torch.equal(checkpoint.newest(tmp_path)["x"], torch.arange(100))
    assert len(list(tmp_path.iterdir())) == 2  # the newest two are kept


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_a_flipped_byte_is_detected_and_the_one_before_used(tmp_path):
    checkpoint.save(tmp_path, 1, {"step": 1})
    checkpoint.save(tmp_path, 2, {"step": 2})
    damaged = tmp_path / "step-0000002" / checkpoint.STATE
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert checkpoint.newest(tmp_path)["step"] == 1
    (tmp_path / "step-0000001" / checkpoint.CHECKSUM).unlink()
    assert checkpoint.newest(tmp_path) is None


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"step": 1})

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", full_disk)
        with pytest.raises(OutputError, match="No space left on device"):
            checkpoint.save(tmp_path, 2, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]
    assert checkpoint.newest(tmp_path)["step"] == 1


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    checkpoint.save(tmp_path, 1, {"step": 1, "try": 1})
    checkpoint.save(tmp_path, 1, {"step": 1, "try": 2})
    assert checkpoint.newest(tmp_path)["try"] == 2
