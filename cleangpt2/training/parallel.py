"""One model trained by several processes: DDP or FSDP2.

Each process computes the gradient of its rows of the batch, and the gradients are summed:

    ddp    every process holds the whole model and optimiser (Li et al., 2020, "PyTorch
           Distributed"); gradients are all-reduced while the backward pass goes on
    fsdp   every process holds a part of each parameter, of its gradient and of what the optimiser
           remembers of it (Rajbhandari et al., 2020, "ZeRO"; Zhao et al., 2023, "PyTorch FSDP");
           the weights of a block are gathered when it is computed and forgotten after

Both give the step that one process would have taken, up to rounding. Any trainer can use them: what
is called here is a function of the model, not the model's own forward pass.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training.runtime import ALONE, Runtime

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

T = TypeVar("T")


class Replica:
    """The model as this process holds it, and the way of its gradients to the others.

    replica = Replica(model, runtime, "fsdp")
    optimizer = torch.optim.AdamW(model.parameters())  # only now: FSDP has replaced them
    for part in parts:
        with replica.exchanging(part is parts[-1]):
            replica.backward(replica(loss_of, part) / number_of_targets)
    """

    def __init__(
        self,
        model: GPT2,
        runtime: Runtime = ALONE,
        sharding: Literal["ddp", "fsdp"] = "ddp",
    ) -> None:
        """Prepare `model`, which has to be the same in all processes and on their devices."""
        self.model, self.runtime = model, runtime
        self._use: nn.Module = _Use(model)
        self.mesh: Any = None
        """The processes over which the weights are sharded, as a ``DeviceMesh``, if they are."""
        if runtime.world_size > 1 and sharding == "fsdp":
            self.mesh = shard(model, runtime)
        elif runtime.world_size > 1:
            self._use = DistributedDataParallel(self._use, gradient_as_bucket_view=True)

    def __call__(self, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """``function(model, *args, **kwargs)``, whose gradient will be that of all processes.

        The function must run ``model.hidden`` before it looks at any weight.
        """
        return self._use(function, *args, **kwargs)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the sum of the processes' losses to the parameters."""
        # Torch takes the mean over the processes, and equal shares of the batch are not equal
        # shares of its targets: the loss is divided by their number, and the gradients are summed.
        (loss * self.runtime.world_size).backward()

    @contextmanager
    def exchanging(self, now: bool) -> Generator[None, None, None]:
        """A block of forward and backward passes whose gradients are exchanged now, or later.

        Gradients that wait are sent along by the next block that exchanges.
        """
        if isinstance(self._use, DistributedDataParallel):
            with nullcontext() if now else self._use.no_sync():
                yield
            return
        if self.mesh is not None:
            cast("FSDPModule", self.model).set_requires_gradient_sync(now)
        yield

    def evaluate(self, function: Callable[[GPT2], T]) -> T:
        """``function(model)`` of a function that needs no gradients, such as one that samples.

        All processes call it together, and may use the model as if each had it whole.
        """
        if self.mesh is None:
            return function(self.model)
        # Caches of keys and values are made like the embedding, which must not be a shard.
        cast("FSDPModule", self.model).unshard()
        try:
            return function(self.model)
        finally:
            cast("FSDPModule", self.model).reshard()

    @torch.no_grad()
    def whole(self) -> GPT2:
        """A model with all weights in every process; a new one on the CPU if they are sharded."""
        if self.mesh is None:
            return self.model
        with torch.device("meta"):
            model = GPT2(self.model.config)
        weights = self.model.state_dict()
        # One parameter at a time: a graphics card need not hold them all.
        gathered = {name: shard.full_tensor().cpu() for name, shard in weights.items()}
        model.load_state_dict(gathered, assign=True)
        return model.train(self.model.training)


class _Use(nn.Module):
    """Any use of the model as a forward pass, which is what DDP can follow."""

    def __init__(self, model: GPT2) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        return function(self.model, *args, **kwargs)


def shard(model: GPT2, runtime: Runtime) -> Any:
    """Leave a part of each parameter in each process; whole blocks are gathered by need.

    Embeddings and the last norm form a group of their own, gathered for the whole step: so the
    output layer finds its weights, which are the token embedding's, after ``hidden`` is done.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # takes a second

    mesh = init_device_mesh(runtime.device.type, (runtime.world_size,))
    for block in model.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "hidden")
    # Room for whole weights is made when they are first gathered. If that is in inference mode, for
    # a measurement before the first step, training may not use it.
    for part in (*model.h, model):
        cast("FSDPModule", part).unshard()
        cast("FSDPModule", part).reshard()
    return mesh
