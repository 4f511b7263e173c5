"""The processes of one run: which of them this is, and how they agree.

``torchrun`` starts the same program several times and tells each process its place in environment
variables. All of them then do the same steps in the same order and meet in collective calls; one,
the main process, speaks and writes. A run of one process is a `Runtime` like any other, whose calls
cost nothing and in which torch.distributed is never touched.

    with start("auto") as runtime:
        with runtime.together():  # a mistake that one finds ends all of them, with one line
            config = read(path)
        total = runtime.sum(len(my_share))
        if runtime.is_main:
            print(total)
"""

import dataclasses
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist

from cleangpt2.device import choose
from cleangpt2.errors import CleanGPT2Error, DeviceError, TrainingError
from cleangpt2.training.meeting import meet

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """One process among `world_size`. What its methods say holds once all have called them."""

    rank: int = 0
    """The number of this process in the run."""
    world_size: int = 1
    """Processes of the run."""
    local_rank: int = 0
    """The number of this process on its machine."""
    device: torch.device = torch.device("cpu")
    """Where it computes."""
    group: Any = None
    """The torch.distributed group through which it speaks; None for that of the run."""

    @property
    def is_main(self) -> bool:
        """Whether it is the one that writes files and speaks to the user."""
        return self.rank == 0

    def sum(self, value: float) -> float:
        """The sum of the values of all processes."""
        return self._reduced(value, dist.ReduceOp.SUM)

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        return self._reduced(float(flag), dist.ReduceOp.MAX) > 0

    def broadcast(self, value: T, source: int = 0) -> T:
        """The value that process `source` has, in all of them."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=source, group=self.group)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def barrier(self) -> None:
        """Wait for all of them."""
        self.sum(0)

    @contextmanager
    def together(self) -> Generator[None, None, None]:
        """A block that succeeds in all processes or in none.

        An error of ours that one of them meets is raised at its end in all, and is `elsewhere` in
        all but one. No process may wait for another inside the block.
        """
        error: CleanGPT2Error | None = None
        try:
            yield
        except CleanGPT2Error as mine:
            if self.world_size == 1:
                raise
            error = mine
        failed = self._reduced(self.rank if error else self.world_size, dist.ReduceOp.MIN)
        if failed < self.world_size:
            first = self.broadcast(error, source=int(failed))
            error = error if self.rank == failed else first
            assert error is not None  # the process that failed has sent its error
            error.elsewhere = self.rank != failed
            raise error

    def on_main(self, make: Callable[[], T]) -> T:
        """What `make` gives in the main process; all call its methods, and there alone they act.

        A call returns None, and is a block of `together`. ``close`` may be called by each process
        when it wants.
        """
        return make() if self.world_size == 1 else cast(T, _OnMain(self, make))

    def reseed(self, seed: int, step: int) -> None:
        """Give each process random numbers of its own, which follow from the step.

        So dropout differs between the rows of a batch wherever they are computed, and a run that
        is taken up again needs nothing remembered. One process goes on with those it has.
        """
        if self.world_size > 1:
            chance = np.random.SeedSequence(seed, spawn_key=(step, self.rank))
            torch.manual_seed(int(chance.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def _reduced(self, value: float, how: Any) -> float:
        if self.world_size == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64)  # on the CPU: no GPU has to be waited for
        dist.all_reduce(number, how, group=self.group)
        return number.item()


ALONE = Runtime()
"""The process of a run that has no other."""


class _OnMain:
    """Stands for an object that only the main process has."""

    def __init__(self, runtime: Runtime, make: Callable[[], Any]) -> None:
        self._runtime = runtime
        with runtime.together():
            self._object = make() if runtime.is_main else None

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            with self._runtime.together():
                if self._object is not None:
                    getattr(self._object, name)(*args, **kwargs)

        return call

    def close(self) -> None:
        if self._object is not None:
            self._object.close()


@contextmanager
def start(device: torch.device | str = "cpu") -> Generator[Runtime, None, None]:
    """Join the processes that torchrun started; alone without it, or inside another `start`.

    Args:
        device: What to compute on, as for ``device.choose``. With several processes on a machine
            each takes a graphics card of its own, and the number in ``cuda:1`` counts for nothing.

    Raises:
        DeviceError: This machine has no such device, or too few of them.
        TrainingError: The environment names several processes and not how they meet; or, from
            inside the block, another one is gone.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Runtime(device=choose(device))
        return
    rank, local_rank = _numbers("RANK", "LOCAL_RANK")
    runtime = Runtime(rank=rank, world_size=world_size, local_rank=local_rank)
    outermost = not dist.is_initialized()
    if outermost:
        # Numbers and words travel between processors, gradients between graphics cards.
        both = torch.cuda.is_available() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if both else "gloo"
        dist.init_process_group(backend, store=meet(), rank=rank, world_size=world_size)
    try:
        with runtime.together():
            mine = _own_device(device, local_rank)
        yield dataclasses.replace(runtime, device=mine)
    except RuntimeError as error:
        if "gloo" not in str(error):  # it has no class of its own for a connection that is lost
            raise
        raise TrainingError(
            f"process {rank} of {world_size} has lost another process of the run; what ended that "
            "one it has said itself, unless it was killed: start the run again to go on"
        ) from error
    finally:
        if outermost:
            dist.destroy_process_group()


def _numbers(*names: str) -> list[int]:
    if missing := [
        name for name in (*names, "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
    ]:
        raise TrainingError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and {', '.join(missing)} is not set: "
            "start the processes with torchrun, or unset WORLD_SIZE to train in one"
        )
    return [int(os.environ[name]) for name in names]


def _own_device(device: torch.device | str, local_rank: int) -> torch.device:
    """The device of the process with this number on its machine."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind = str(device).split(":")[0]
    if kind == "auto":  # Metal has no collectives
        kind = "cuda" if count else "cpu"
    if kind == "cpu":
        return torch.device("cpu")
    if kind != "cuda":
        raise DeviceError(f"several processes cannot share {device!s}: take --device cpu")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if count < here:
        raise DeviceError(
            f"{here} processes on this machine and {count} graphics cards: give torchrun "
            f"--nproc-per-node {max(1, count)}, or train with --device cpu"
        )
    chosen = torch.device("cuda", local_rank)
    torch.cuda.set_device(chosen)
    return chosen
