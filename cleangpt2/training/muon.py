"""Muon for matrices of which each process holds some rows."""

from typing import Any

import torch
from torch import Tensor


class ShardedMuon(torch.optim.Muon):
    """The steps of ``torch.optim.Muon``, which orthogonalises whole matrices.

    What it does to each number alone is done to this process's rows: momentum, decay, the sum. The
    matrix in between is gathered, and orthogonalised in every process as DDP would have it; one is
    whole at a time.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move the parameters; there is no closure to evaluate."""
        assert closure is None
        for group in self.param_groups:
            for shard in group["params"]:
                if shard.grad is not None:
                    self._move(shard, group)

    def _move(self, shard: Any, group: dict[str, Any]) -> None:
        """One matrix, a DTensor sharded by rows."""
        from torch.distributed.tensor import distribute_tensor

        state, momentum = self.state[shard], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(shard.grad)
        mean = state["momentum_buffer"].lerp_(shard.grad, 1 - momentum)
        update = shard.grad.lerp(mean, momentum) if group["nesterov"] else mean
        whole = _orthogonal_step(update.full_tensor(), group)
        mine = distribute_tensor(whole, shard.device_mesh, shard.placements, src_data_rank=None)
        shard.mul_(1 - group["lr"] * group["weight_decay"]).add_(mine)


def _orthogonal_step(update: Tensor, group: dict[str, Any]) -> Tensor:
    """What Muon adds to a whole matrix: its step from zero, without momentum and decay."""
    zero = torch.zeros_like(update).requires_grad_()
    zero.grad = update
    settings = {
        name: group[name]
        for name in ("lr", "nesterov", "ns_coefficients", "eps", "ns_steps", "adjust_lr_fn")
    }
    torch.optim.Muon([zero], **settings, momentum=0.0, weight_decay=0.0).step()
    return zero.detach()
