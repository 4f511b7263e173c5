"""A training process that is really killed, again and again, loses nothing that matters."""

import json
import os
from collections import Counter

import pytest

from tests.helpers import run_python

KILLS = 20


def run(folder, saves, kills, seed=0):
    """Train, dying so many times on the way: the moments and the hash of the last weights."""
    done = run_python(
        "-m", "tests.training.killing", str(folder), saves, str(kills), str(seed), timeout_s=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, "at once", kills=0)["digest"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL there")
@pytest.mark.parametrize(("saves", "seed"), [("at once", 1), ("background", 2)])
def test_killed_at_twenty_random_moments_it_ends_with_the_same_weights(
    whole, tmp_path, saves, seed
):
    killed = run(tmp_path, saves, KILLS, seed)
    parts = Counter(moment.partition(":")[0] for moment in killed["moments"])
    assert sum(parts.values()) == KILLS
    assert min(parts[part] for part in ("data", "gradient", "optimiser", "log")) >= 2
    assert parts["checkpoint"] >= 7  # between every two of its steps
    folder, digest = whole
    assert killed["digest"] == digest
    logs = [(place / "metrics.jsonl").read_bytes() for place in (folder, tmp_path)]
    assert logs[0] == logs[1]
    assert logs[0].count(b"\n") == 400
