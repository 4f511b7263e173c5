"""Two processes count what they send each other; ``test_traffic.py`` knows what to expect.

torchrun --nproc-per-node 2 traffic.py FILE
"""

import json
import os
import sys
from pathlib import Path

import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.optim import optimizers
from cleangpt2.training.parallel import Replica
from cleangpt2.training.runtime import Runtime, start
from cleangpt2.training.step import summed_loss

SHAPE = GPT2Config(vocab_size=6000, n_positions=16, n_embd=160, n_layer=4, n_head=4,
                   resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)  # fmt: skip
WAYS = [("ddp", 1, "adamw"), ("ddp", 3, "adamw"), ("fsdp", 1, "adamw"), ("fsdp", 3, "adamw"),
        ("fsdp", 1, "muon")]  # fmt: skip
STEPS = 6


def loopback_bytes() -> int:
    """Bytes that all programs of this machine have sent through the loopback so far."""
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    counts = next(line.split(":")[1].split() for line in lines if line.strip().startswith("lo:"))
    return int(counts[8])


def bytes_of_a_step(runtime: Runtime, sharding: str, micro_batches: int, optimizer: str) -> float:
    """What a process sends, in the step in which the machine was least busy with other things."""
    torch.manual_seed(0)
    model = GPT2(SHAPE).train()
    replica = Replica(model, runtime, sharding)
    moving = optimizers(model, PretrainConfig(optimizer=optimizer))
    sent = []
    for _ in range(STEPS):
        runtime.barrier()
        before = loopback_bytes()
        for part in range(micro_batches):
            ids = torch.randint(SHAPE.vocab_size, (1, 16))
            with replica.exchanging(part == micro_batches - 1):
                replica.backward(replica(summed_loss, ids, ids))
        for one in moving:
            one.step()
            one.zero_grad()
        runtime.barrier()
        sent.append((loopback_bytes() - before) / runtime.world_size)
    return min(sent)


if __name__ == "__main__":
    with start("cpu") as runtime:
        found = [bytes_of_a_step(runtime, *way) for way in WAYS]
        if runtime.is_main:
            Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
    os._exit(0)  # as `cleangpt2` does under torchrun; see cli/main.py
