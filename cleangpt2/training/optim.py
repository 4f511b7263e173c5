"""The optimisers and which parameter each one moves."""

import torch
from torch import nn

from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training.config import PretrainConfig


def optimizers(model: GPT2, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for embeddings, norms and biases; Muon (or AdamW) for the matrices of the blocks.

    Muon (Jordan et al., 2024) replaces each matrix's momentum by the nearest orthogonal matrix.
    Scaled by 0.2 * sqrt(larger side) (Liu et al., 2025, "Muon is scalable"), its updates are as
    large as AdamW's and take the same learning rate and decay.
    """
    matrices = [p for p in model.h.parameters() if p.ndim == 2]
    decayed = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in decayed]
    if config.optimizer == "adamw":
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return [_adamw(groups, config)]
    muon = torch.optim.Muon(
        matrices,
        lr=config.muon_lr,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, _adamw([{"params": others, "weight_decay": 0.0}], config)]


def _adamw(groups: list[dict], config: PretrainConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def set_lr(optimizers: list[torch.optim.Optimizer], config: PretrainConfig, step: int) -> float:
    """Set every group's learning rate for `step`; return AdamW's."""
    scale = config.lr_scale(step)
    for optimizer in optimizers:
        peak = config.muon_lr if isinstance(optimizer, torch.optim.Muon) else config.lr
        for group in optimizer.param_groups:
            group["lr"] = peak * scale
    return config.lr * scale


def clip(model: nn.Module, limit: float) -> float:
    """Scale the gradients down to norm `limit`; return the norm they had."""
    return float(nn.utils.clip_grad_norm_(model.parameters(), limit))
