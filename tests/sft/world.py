"""What two processes that torchrun started do; ``test_processes.py`` looks at what comes of it.

torchrun --nproc-per-node 2 world.py FOLDER
"""

import contextlib
import json
import sys
from pathlib import Path

import torch

from cleangpt2.sft import sft as module
from cleangpt2.sft.evaluation import answer_figures
from cleangpt2.sft.examples import fit
from cleangpt2.training.runtime import start
from tests.sft.lessons import batches, model, some

WAYS = {
    "ddp": {"sharding": "ddp"},
    "fsdp": {"sharding": "fsdp"},
    "padded": {"packing": "pad"},
    "micro": {"micro_batches": 2, "batch_size": 8},
    "lora": {"lora": 4},
}


class Killed(Exception):
    """Stands for processes that die together."""


def train(folder, runtime=None, **changes):
    held_out = fit(some(7, seed=9), context=32)
    return module.sft(
        model(),
        batches(some(50), **changes),
        folder,
        validate=lambda m: answer_figures(
            m, held_out, B=2, **({"runtime": runtime} if runtime else {})
        ),
    )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def main(folder: Path) -> None:
    equal = {}
    with start("cpu") as runtime:
        for name, changes in WAYS.items():
            whole = weights(train(folder / name, runtime, **changes))
            if runtime.is_main:
                torch.save(whole, folder / name / "weights.pt")
        for name in ("ddp", "fsdp"):
            original, calls = module.clip, []

            def dying(*args, original=original, calls=calls):
                calls.append(1)
                if len(calls) == 7:
                    raise Killed
                return original(*args)

            module.clip = dying
            with contextlib.suppress(Killed):
                train(folder / f"died-{name}", runtime, **WAYS[name])
            module.clip = original
            back = train(folder / f"died-{name}", runtime, **WAYS[name])
            whole = torch.load(folder / name / "weights.pt")
            equal[name] = torch.equal(weights(back), whole)
        (folder / f"seen-{runtime.rank}.json").write_text(json.dumps(equal), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
