"""A run that is killed again and again, each time at another known moment, and taken up again.

    python -m tests.training.killing FOLDER SAVES KILLS SEED

Starting torch takes seconds, so one process imports it and forks those that train and die: each
begins with nothing of the one before but its files, and ends by a real SIGKILL, which it sends to
itself at a call that was drawn. Prints, as JSON, the moments and the hash of the last weights.
"""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cleangpt2.data.batches import Batches
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training import checkpoint
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.pretrain import pretrain
from cleangpt2.training.runlog import Rows
from cleangpt2.training.state import TrainState

STEPS = 400
MODEL = GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2)
TOKENS = np.tile(np.random.default_rng(0).permutation(64).astype(np.uint16), 40)


class Strike:
    """Ends this process at call number `call` of what it is set upon."""

    def __init__(self, moment: str, call: int, report: int) -> None:
        self.moment, self.call, self.report, self.calls = moment, call, report, 0

    def is_due(self) -> bool:
        self.calls += 1
        return self.calls == self.call

    def now(self) -> None:
        os.write(self.report, self.moment.encode())
        os.kill(os.getpid(), signal.SIGKILL)


# ---- moments -------------------------------------------------------------------------------


def before(owner, name, matches=lambda *_: True):
    """As the function is called, if its arguments match."""

    def install(strike):
        original = getattr(owner, name)

        def hooked(*args, **kwargs):
            if matches(*args) and strike.is_due():
                strike.now()
            return original(*args, **kwargs)

        setattr(owner, name, hooked)

    return install


def after(owner, name, matches=lambda *_: True):
    """When the function has done its work."""

    def install(strike):
        original = getattr(owner, name)

        def hooked(*args, **kwargs):
            result = original(*args, **kwargs)
            if matches(*args) and strike.is_due():
                strike.now()
            return result

        setattr(owner, name, hooked)

    return install


def instead(owner, name, leave, matches=lambda *_: True):
    """When `leave` has left half of what the function would have done."""

    def install(strike):
        original = getattr(owner, name)

        def hooked(*args, **kwargs):
            if matches(*args) and strike.is_due():
                leave(original, *args)
                strike.now()
            return original(*args, **kwargs)

        setattr(owner, name, hooked)

    return install


def half_a_line(_, rows, row):
    rows.file.write(json.dumps(row)[:9])
    rows.file.flush()


def half_a_state(save, state, file):
    whole = io.BytesIO()
    save(state, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()


def half_the_sums(write_text, path, text, **_):
    write_text(path, text[: len(text) // 2], encoding="utf-8")


def half_the_files(_, folder, *__):
    next(Path(folder).iterdir()).unlink()


def is_of_sums(path, *_):
    return path.name == checkpoint.CHECKSUM


def is_partial(path, *_):
    return path.name.startswith(".partial-")


def is_whole(path, *_):
    return Path(path).name.startswith("step-")


MOMENTS: dict[str, Callable[[Strike], None]] = {
    "data: asked for": before(Batches, "__call__"),
    "data: given": after(Batches, "__call__"),
    "gradient: loss known": before(torch.Tensor, "backward"),
    "gradient: added": after(torch.Tensor, "backward"),
    "optimiser: weights as they were": before(TrainState, "update"),
    "optimiser: weights moved": after(TrainState, "update"),
    "log: half a line": instead(Rows, "add", half_a_line),
    "log: whole line": after(Rows, "add"),
    "checkpoint: half a file": instead(torch, "save", half_a_state),
    "checkpoint: not flushed": after(torch, "save"),
    "checkpoint: no checksum": before(Path, "write_text", is_of_sums),
    "checkpoint: half a checksum": instead(Path, "write_text", half_the_sums, is_of_sums),
    "checkpoint: not renamed": before(Path, "rename", is_partial),
    "checkpoint: renamed": after(Path, "rename", is_partial),
    "checkpoint: half of an old one removed": instead(shutil, "rmtree", half_the_files, is_whole),
}


# ---- runs ----------------------------------------------------------------------------------


def train(folder: Path, saves: str) -> str:
    """The run; the hash of its weights."""
    config = PretrainConfig(
        steps=STEPS, batch_size=4, micro_batches=2, context=16, save_every=3,
        background_saves=saves == "background",
    )  # fmt: skip
    digest = hashlib.sha256()
    for parameter in pretrain(MODEL, config, TOKENS, folder).parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def in_a_process(work: Callable[[int], object]) -> tuple[int, str]:
    """How a process ended that does `work`, and what it has written to the number it was given."""
    reading, writing = os.pipe()
    if (process := os.fork()) == 0:
        try:
            work(writing)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said


def be_killed(folder: Path, saves: str, moment: str, call: int) -> None:
    """Train in a process that dies at a moment.

    Raises:
        RuntimeError: It did not.
    """

    def work(report: int) -> None:
        MOMENTS[moment](Strike(moment, call, report))
        train(folder, saves)

    code, said = in_a_process(work)
    if (code, said) != (-signal.SIGKILL, moment):
        raise RuntimeError(f"to be killed at call {call} of {moment!r}, it ended with {code}")


def main(folder: str, saves: str, kills: str, seed: str) -> None:
    """Die at every moment, and at some again, in random order; then live to the end."""
    TrainState(GPT2(MODEL), PretrainConfig())  # what optimisers import is imported once
    rng = random.Random(int(seed))
    again = max(0, int(kills) - len(MOMENTS))
    moments = [*MOMENTS, *rng.choices(list(MOMENTS), k=again)][: int(kills)]
    rng.shuffle(moments)
    for moment in moments:
        call = rng.randint(1, 3 if moment.startswith("checkpoint") else 15)
        be_killed(Path(folder), saves, moment, call)
    code, digest = in_a_process(
        lambda number: os.write(number, train(Path(folder), saves).encode())
    )
    if code:
        raise RuntimeError(f"the last run ended with {code}")
    print(json.dumps({"moments": moments, "digest": digest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
