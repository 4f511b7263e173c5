"""A disk that fills up while a run writes to it costs no checkpoint and no line of the log."""

import pytest

from tests.disk import run_on_small_disk

SCRIPT = """
import sys
from pathlib import Path
from cleangpt2.errors import OutputError
from cleangpt2.training import checkpoint
from tests.training import killing

small, large, saves = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
killing.STEPS = 30
whole = killing.train(large, saves)
try:
    killing.train(small / "run", saves)
except OutputError as error:
    print(error)
saved = checkpoint.newest(small / "run" / "checkpoints")["step"]
print(*sorted(path.name for path in (small / "run" / "checkpoints").iterdir()))
grow(small)
again = killing.train(small / "run", saves)
logs = [(folder / "metrics.jsonl").read_bytes() for folder in (large, small / "run")]
print(0 < saved < 30, again == whole, logs[0] == logs[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("saves", ["at once", "background"])
def test_a_run_goes_on_where_the_disk_was_full_and_ends_the_same(tmp_path, saves):
    done = run_on_small_disk(
        SCRIPT, tmp_path / "small", str(tmp_path / "large"), saves, size="800k"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    complaint, kept, compared = done.stdout.splitlines()
    assert "cannot be written: No space left on device; make room and run it again" in complaint
    assert kept.split() == ["step-0000003", "step-0000006"]  # and nothing half done
    assert compared == "True True True"
