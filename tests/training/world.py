"""What a few processes that torchrun started do; ``test_parallel.py`` looks at what comes of it.

    torchrun --nproc-per-node 2 world.py FOLDER

A process takes seconds to start, so one world does it all, a check after the other. Each leaves run
folders in FOLDER, or what it saw in ``seen-RANK.json``.
"""

import contextlib
import dataclasses
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import torch

from cleangpt2.errors import CleanGPT2Error, ConfigError
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.training import pretrain as module
from cleangpt2.training import step as step_module
from cleangpt2.training.interrupt import Stopped
from cleangpt2.training.muon import ShardedMuon
from cleangpt2.training.parallel import Replica
from cleangpt2.training.pretrain import pretrain
from cleangpt2.training.runtime import Runtime, start
from cleangpt2.training.samples import unprompted
from cleangpt2.training.validation import held_out_bits_per_byte
from tests.training.runs import CONFIG, MODEL, TOKENS, WITHOUT_DROPOUT, weights

BASE = dataclasses.replace(CONFIG, steps=10, batch_size=8, save_every=5, lr=1e-3, muon_lr=3e-4)
RUNS = {
    "muon": {"optimizer": "muon"},
    "adamw-micro": {"optimizer": "adamw", "micro_batches": 2},
}
WAYS = ("ddp", "fsdp")
MEASURED = dataclasses.replace(BASE, optimizer="adamw", keep_best=True, patience=3)
TEXTS = ["low low lower", "ü", "a much longer text that leaves the context of the model", "", "so"]


class Killed(Exception):
    """Stands for processes that die together."""


@contextlib.contextmanager
def before_clip(step, what):
    """Call `what` at a step, counted from the start of the block: just before gradients are cut."""
    original, calls = module.clip, []

    def clip(*args):
        calls.append(1)
        if len(calls) - 1 == step:
            what(*args)
        return original(*args)

    module.clip = clip
    try:
        yield
    finally:
        module.clip = original


def die(*_):
    raise Killed


def died(folder, config, shape=WITHOUT_DROPOUT):
    """A run that has saved after 5 steps and died in step 7."""
    with contextlib.suppress(Killed), before_clip(7, die):
        pretrain(shape, config, TOKENS, folder)


def vocabulary():
    return Tokenizer.train(TEXTS, 262)


def measured_run(folder, config, runtime=Runtime()):  # noqa: B008 (frozen)
    """A run with validation, samples and exports, as the command line has it."""
    tokenizer = vocabulary()
    shape = dataclasses.replace(WITHOUT_DROPOUT, vocab_size=tokenizer.vocab_size)
    return pretrain(
        shape,
        dataclasses.replace(config, eval_every=2, sample_every=5, export_every=5),
        TOKENS,
        folder,
        validate=lambda m: held_out_bits_per_byte(m, tokenizer, TEXTS, B=2, runtime=runtime),
        sample=lambda m: unprompted(m, tokenizer),
        export=lambda m, place: torch.save(weights(m), place / "weights.pt"),
    )


def error_of(action):
    """What an error says, and whether another process tells it."""
    try:
        action()
    except (CleanGPT2Error, Stopped) as error:
        return [type(error).__name__, str(error), error.elsewhere]
    return None


# --- checks of any world ------------------------------------------------------------------------


def trains(runtime: Runtime, folder: Path):
    for way in WAYS:
        for name, changes in RUNS.items():
            config = dataclasses.replace(BASE, sharding=way, **changes)
            model = pretrain(WITHOUT_DROPOUT, config, TOKENS, folder / f"{way}-{name}")
            if runtime.is_main:
                torch.save(weights(model), folder / f"{way}-{name}" / "weights.pt")


def goes_on(runtime: Runtime, folder: Path):
    """From what other worlds left in ``given``, each time in both ways."""
    seen = {}
    for given in sorted((folder / "given").iterdir()):
        for way in WAYS:
            place = folder / f"{given.name}-to-{way}"
            if runtime.is_main:
                shutil.copytree(given, place)
            runtime.barrier()
            config = dataclasses.replace(BASE, sharding=way)
            seen[place.name] = weights(pretrain(WITHOUT_DROPOUT, config, TOKENS, place)).tolist()
    return seen if runtime.is_main else None


# --- checks of two processes --------------------------------------------------------------------


def agrees(runtime: Runtime, folder: Path):
    rank = runtime.rank
    seen = {
        "sum": runtime.sum(rank + 1),
        "any": [runtime.any(rank == 1), runtime.any(False)],
        "broadcast": [runtime.broadcast(rank), runtime.broadcast({"of": rank}, source=1)],
        "gather": runtime.gather(chr(97 + rank)),
    }

    def fail(*ranks):
        with runtime.together():
            if rank in ranks:
                raise ConfigError(f"of {rank}")

    seen["together"] = [error_of(lambda r=r: fail(*r)) for r in ((), (0,), (1,), (0, 1))]
    calls = []
    kept = runtime.on_main(lambda: calls)
    kept.append(rank)
    seen["on_main"] = calls
    runtime.reseed(3, 7)
    seen["random"] = torch.rand(2).tolist()
    return seen


def moves_as_torch_does(runtime: Runtime, _folder: Path):
    """The largest difference between sharded and whole matrices after steps of Muon."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (runtime.world_size,))

    def spread(x):
        return distribute_tensor(x, mesh, [Shard(0)])

    differences = []
    for nesterov in (True, False):
        torch.manual_seed(5)
        whole = [torch.nn.Parameter(torch.randn(shape)) for shape in ((5, 3), (1, 9), (12, 12))]
        shards = [torch.nn.Parameter(spread(p.detach().clone())) for p in whole]
        settings = {"lr": 0.1, "weight_decay": 0.3, "nesterov": nesterov}
        optimizers = [torch.optim.Muon(whole, **settings), ShardedMuon(shards, **settings)]
        for _ in range(3):
            for p, shard in zip(whole, shards, strict=True):
                p.grad = torch.randn(p.shape)
                shard.grad = spread(p.grad)
            for optimizer in optimizers:
                optimizer.step()
        pairs = zip(whole, shards, strict=True)
        differences += [(p - shard.full_tensor()).abs().max().item() for p, shard in pairs]
    return differences


def waits(runtime: Runtime, _folder: Path):
    """A gradient after a block that does not exchange, and after one that does."""
    seen = {}
    for way in WAYS:
        torch.manual_seed(0)
        replica = Replica(GPT2(WITHOUT_DROPOUT), runtime, way)
        inputs = torch.full((1, 4), 1 + runtime.rank)
        for now in (False, True):
            with replica.exchanging(now):
                replica.backward(replica(step_module.summed_loss, inputs, inputs))
            grad = replica.model.h[0].attn.c_proj.weight.grad
            if grad is not None:
                grad = getattr(grad, "full_tensor", lambda whole=grad: whole)().norm().item()
            seen[f"{way} {now}"] = grad
    return seen


def dies(_runtime: Runtime, folder: Path):
    for way in WAYS:
        died(folder / f"died-{way}", dataclasses.replace(BASE, sharding=way))


def draws(runtime: Runtime, folder: Path):
    """What the random numbers of each process begin with, in two of the steps."""
    seeds = []
    for step in (2, 3):
        with before_clip(step, lambda *_: seeds.append(torch.initial_seed())):
            pretrain(MODEL, dataclasses.replace(BASE, steps=4), TOKENS, folder / f"draws-{step}")
    return seeds


def comes_back_exactly(runtime: Runtime, folder: Path):
    """With dropout, in the same number of processes; with checkpoints of both kinds."""
    equal = {}
    for way in WAYS:
        whole = pretrain(MODEL, dataclasses.replace(BASE, sharding=way), TOKENS, folder / "w" / way)
        config = dataclasses.replace(BASE, sharding=way, background_saves=True)
        died(folder / "back" / way, config, MODEL)
        torch.manual_seed(99)
        back = pretrain(MODEL, config, TOKENS, folder / "back" / way)
        equal[way] = torch.equal(weights(whole), weights(back))
    return equal


def measures(runtime: Runtime, folder: Path):
    bits = {}
    for way in WAYS:
        config = dataclasses.replace(MEASURED, sharding=way)
        model = measured_run(folder / f"measured-{way}", config, runtime)
        bits[way] = held_out_bits_per_byte(model, vocabulary(), TEXTS)
    return bits  # of the model that came back, in each process by itself


def skips(runtime: Runtime, folder: Path):
    """Steps whose loss is lost in one process alone."""
    original, calls = step_module.summed_loss, []

    def spoilt(*args, **settings):
        calls.append(1)
        usual = original(*args, **settings)
        return usual * float("nan") if runtime.rank == 1 and len(calls) in (3, 5, 6) else usual

    step_module.summed_loss = spoilt
    seen = {}
    for way in WAYS:
        calls.clear()
        config = dataclasses.replace(BASE, sharding=way)
        model = pretrain(WITHOUT_DROPOUT, config, TOKENS, folder / f"skips-{way}")
        seen[way] = bool(weights(model).isfinite().all())
    calls.clear()
    config = dataclasses.replace(BASE, max_skips=2)
    seen["given up"] = error_of(lambda: pretrain(MODEL, config, TOKENS, folder / "given-up"))
    step_module.summed_loss = original
    return seen


def overflows(runtime: Runtime, folder: Path):
    """In fp16, in the rows of a matrix that one process holds alone."""
    original, calls = module.accumulate, []

    def overflowing(replica, *args, **settings):
        calls.append(1)
        loss = original(replica, *args, **settings)
        if len(calls) == 4 and runtime.rank == 1:
            replica.model.h[0].mlp.c_fc.weight.grad.to_local().fill_(float("inf"))
        return loss

    module.accumulate = overflowing
    for optimizer in ("muon", "adamw"):
        calls.clear()
        config = dataclasses.replace(BASE, sharding="fsdp", precision="fp16", optimizer=optimizer)
        pretrain(WITHOUT_DROPOUT, config, TOKENS, folder / f"overflows-{optimizer}")
    module.accumulate = original


def stops(runtime: Runtime, folder: Path):
    seen = {}

    def signalled(*_):
        if runtime.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    for way in WAYS:
        config = dataclasses.replace(BASE, sharding=way, save_every=100, background_saves=True)
        with before_clip(3, signalled):
            seen[way] = error_of(lambda c=config, w=way: pretrain(
                WITHOUT_DROPOUT, c, TOKENS, folder / f"stopped-{w}"))  # fmt: skip
    return seen


def refuses(runtime: Runtime, folder: Path):
    uneven = dataclasses.replace(BASE, batch_size=9, micro_batches=3)
    (folder / "finished" / str(runtime.rank)).parent.mkdir(exist_ok=True)
    pretrain(WITHOUT_DROPOUT, BASE, TOKENS, folder / "finished")
    if runtime.is_main:
        (folder / "finished" / "model").mkdir()
    runtime.barrier()
    unseen = folder / "unseen" if runtime.is_main else folder / "elsewhere" / "unseen"
    return {
        "uneven": error_of(lambda: pretrain(MODEL, uneven, TOKENS, folder / "uneven")),
        "finished": error_of(lambda: pretrain(WITHOUT_DROPOUT, BASE, TOKENS, folder / "finished")),
        "unseen": error_of(lambda: pretrain(WITHOUT_DROPOUT, BASE, TOKENS, unseen)),
    }


def fills_the_disk(runtime: Runtime, folder: Path):
    """Of the second process only, when the second checkpoint is written."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(*_):
        if runtime.rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, before[1]))

    seen = {}
    for background in (False, True):
        place = folder / f"full-{background}"
        config = dataclasses.replace(BASE, sharding="fsdp", background_saves=background)
        with before_clip(7, full):
            seen[place.name] = error_of(
                lambda c=config, p=place: pretrain(WITHOUT_DROPOUT, c, TOKENS, p)
            )
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return seen


TWO = (
    agrees, moves_as_torch_does, waits, trains, dies, goes_on, draws, comes_back_exactly,
    measures, skips, overflows, stops, refuses, fills_the_disk,
)  # fmt: skip
FOUR = (trains, goes_on)

if __name__ == "__main__":
    with start("cpu") as runtime:
        seen = {}
        for action in TWO if runtime.world_size == 2 else FOUR:
            seen[action.__name__] = action(runtime, Path(sys.argv[1]))
        (Path(sys.argv[1]) / f"seen-{runtime.rank}.json").write_text(json.dumps(seen))
    os._exit(0)  # as `cleangpt2` does under torchrun; see cli/main.py
