"""The optimisers and which parameter each one moves."""

from typing import Any

import torch
from torch import nn

from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training.muon import ShardedMuon
from cleangpt2.training.settings import TrainingConfig


def optimizers(model: GPT2, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW for embeddings, norms and biases; Muon (or AdamW) for the matrices of the blocks.

    Muon (Jordan et al., 2024) replaces each matrix's momentum by the nearest orthogonal matrix.
    Scaled by 0.2 * sqrt(larger side) (Liu et al., 2025, "Muon is scalable"), its updates are as
    large as AdamW's and take the same learning rate and decay. Frozen parameters have neither.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    of_blocks = {id(p) for p in model.h.parameters() if p.ndim == 2}
    matrices = [p for p in trained if id(p) in of_blocks]
    others = [p for p in trained if id(p) not in of_blocks]
    if config.peak_muon_lr is None:
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return [_adamw(groups, config)]
    sharded = any(hasattr(matrix, "device_mesh") for matrix in matrices)
    muon = (ShardedMuon if sharded else torch.optim.Muon)(
        matrices,
        lr=config.peak_muon_lr,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, _adamw([{"params": others, "weight_decay": 0.0}], config)]


def _adamw(groups: list[dict], config: TrainingConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        groups, lr=config.peak_lr, betas=(config.beta1, config.beta2), fused=True
    )


def set_lr(optimizers: list[torch.optim.Optimizer], config: TrainingConfig, step: int) -> float:
    """Set every group's learning rate for `step`; return AdamW's."""
    scale = config.lr_scale(step)
    for optimizer in optimizers:
        is_muon = isinstance(optimizer, torch.optim.Muon)
        peak = (config.peak_muon_lr if is_muon else None) or config.peak_lr
        for group in optimizer.param_groups:
            group["lr"] = peak * scale
    return config.peak_lr * scale


def clip(model: nn.Module, limit: float) -> float:
    """Scale the gradients down to norm `limit`; return the norm they had."""
    norm: Any = nn.utils.clip_grad_norm_(model.parameters(), limit)
    # Of sharded parameters it comes as a sum that no process has made yet.
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
