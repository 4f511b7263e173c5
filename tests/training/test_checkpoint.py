import os
from hashlib import sha256

import pytest
import torch

from cleangpt2.errors import OutputError
from cleangpt2.training import checkpoint
from tests.helpers import run_python


def test_the_newest_comes_back(tmp_path):
    for step in (5, 10, 100):
        checkpoint.save(tmp_path, step, {"step": step, "x": torch.arange(step)})
    assert torch.equal(checkpoint.newest(tmp_path)["x"], torch.arange(100))
    assert len(list(tmp_path.iterdir())) == 2  # the newest two are kept


def test_checksums_are_as_other_programs_read_them_and_once_were_shorter(tmp_path):
    checkpoint.save(tmp_path, 1, {"step": 1})
    sums = tmp_path / "step-0000001" / checkpoint.CHECKSUM
    digest = sha256((sums.parent / checkpoint.STATE).read_bytes()).hexdigest()
    assert sums.read_text(encoding="utf-8") == f"{digest}  state.pt\n"
    sums.write_text(digest, encoding="utf-8")
    assert checkpoint.newest(tmp_path) == {"step": 1}


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


def steps(folder):
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def test_the_last_n_and_a_spared_one_are_kept(tmp_path):
    for step in range(1, 7):
        checkpoint.save(tmp_path, step, {"step": step}, keep=3, spare=2 if step > 1 else None)
    assert steps(tmp_path) == [2, 4, 5, 6]
    checkpoint.save(tmp_path, 7, {"step": 7}, keep=3, spare=6)
    assert steps(tmp_path) == [5, 6, 7]
    assert checkpoint.load(tmp_path, 6) == {"step": 6}
    assert checkpoint.load(tmp_path, 2) is None


def test_a_damaged_one_ahead_never_pushes_out_what_was_just_saved(tmp_path):
    for step in (10, 20):
        checkpoint.save(tmp_path, step, {"step": step})
    (tmp_path / "step-0000020" / checkpoint.STATE).write_bytes(b"")
    checkpoint.save(tmp_path, 12, {"step": 12}, keep=1)
    assert checkpoint.newest(tmp_path) == {"step": 12}
    assert steps(tmp_path) == [12, 20]


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from cleangpt2.errors import OutputError
from cleangpt2.training import checkpoint

folder = Path(sys.argv[1])
checkpoint.save(folder, 1, {"step": 1})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    checkpoint.save(folder, 2, {"step": 2, "x": torch.zeros(1 << 16)})
except OutputError as error:
    print(error)
print(checkpoint.newest(folder)["step"], [path.name for path in folder.iterdir()])
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such limits there")
def test_a_write_that_really_fails_half_way_costs_one_line(tmp_path):
    """The system refuses to let the file grow, as it does on a full disk."""
    done = run_python("-c", FULL, str(tmp_path))
    assert done.returncode == 0, done.stderr
    message, rest = done.stdout.splitlines()
    assert message.endswith(
        "step-0000002 cannot be written: File too large; "
        "make room and run it again to go on from the one before"
    )
    assert rest == "1 ['step-0000001']"
