"""Two processes learn what one learns, and come back exactly."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import run_python
from tests.sft import world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs signals and forks"),
]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    done = run_python(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(Path(world.__file__)), str(folder), env={"OMP_NUM_THREADS": "1"}, timeout_s=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("way", world.WAYS)
def test_two_processes_have_the_losses_and_weights_of_one(two, tmp_path, way):
    alone = world.weights(world.train(tmp_path, **world.WAYS[way]))
    for mine, theirs in zip(rows(tmp_path), rows(two / way), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4), way
    # AdamW's first steps have the size of the learning rate whatever a gradient's, so where one is
    # all rounding a weight may go either way: 12 steps of 1e-3 at most, and hardly any of them.
    apart = (torch.load(two / way / "weights.pt") - alone).abs()
    assert apart.max() < 5e-3 and (apart > 1e-5).float().mean() < 1e-2


def test_they_come_back_exactly(two):
    for rank in range(2):
        seen = json.loads((two / f"seen-{rank}.json").read_text(encoding="utf-8"))
        assert seen == {"ddp": True, "fsdp": True}
