"""A training process that is really killed, again and again, loses nothing that matters."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import ROOT, run_python

SCRIPT = """
import hashlib, sys
import numpy as np
from cleangpt2.model.config import GPT2Config
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.pretrain import pretrain

shape = GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2)
config = PretrainConfig(
    steps=400, batch_size=4, context=16, save_every=3, background_saves=sys.argv[2] == "background"
)
tokens = np.tile(np.random.default_rng(0).permutation(64).astype(np.uint16), 40)
model = pretrain(shape, config, tokens, sys.argv[1])
digest = hashlib.sha256()
for parameter in model.parameters():
    digest.update(parameter.detach().numpy().tobytes())
print(digest.hexdigest())
"""


def lines(path):
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL there")
@pytest.mark.parametrize("saves", ["at once", "background"])
def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path, saves):
    whole = run_python("-c", SCRIPT, str(tmp_path / "whole"), "at once")
    assert whole.returncode == 0, whole.stderr

    folder = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for step in (2, 40, 111, 202, 350):  # the checkpoint every third step is often half written
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), saves],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while lines(folder / "metrics.jsonl") < step and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    resumed = run_python("-c", SCRIPT, str(folder), saves)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == whole.stdout
    logs = [(place / "metrics.jsonl").read_bytes() for place in (tmp_path / "whole", folder)]
    assert logs[0] == logs[1]
