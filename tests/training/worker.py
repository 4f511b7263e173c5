"""One process of a run that loses processes; ``test_torchrun.py`` starts it under torchrun.

    torchrun --nproc-per-node 2 worker.py FOLDER SECONDS_A_STEP [KILL]

With KILL the second process kills itself in step 7, once.
"""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import torch

from cleangpt2.training import pretrain as module
from cleangpt2.training.runtime import start
from tests.training.runs import TOKENS, WITHOUT_DROPOUT, weights
from tests.training.world import BASE

CONFIG = {"optimizer": "adamw", "sharding": "fsdp", "save_every": 2, "background_saves": True}


def main(folder: Path, pause_s: float, kill: bool) -> None:
    (folder / f"pid-{os.environ.get('HOST', '')}-{os.getpid()}").touch()
    clip, calls, once = module.clip, [], folder / "killed"

    def slow_clip(*args):
        calls.append(1)
        time.sleep(pause_s)
        if kill and len(calls) == 7 and os.environ["RANK"] == "1" and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return clip(*args)

    module.clip = slow_clip
    config = dataclasses.replace(BASE, **CONFIG, steps=24 if pause_s else 10)
    with start() as runtime:
        model = module.pretrain(WITHOUT_DROPOUT, config, TOKENS, folder / "run")
        if runtime.is_main:
            torch.save(weights(model), folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:] == ["KILL"])
    os._exit(0)  # as `cleangpt2` does under torchrun; see cli/main.py
