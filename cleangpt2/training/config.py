"""Settings of a pretraining run; no torch, so that ``--help`` is quick."""

import math
from dataclasses import dataclass
from typing import Literal

from cleangpt2.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """How a model is trained on packed text."""

    steps: int = 1000
    """Optimiser steps of the whole run."""
    batch_size: int = 8
    """Sequences B of one step."""
    context: int = 512
    """Tokens T of one sequence; at most the model's `n_positions`."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon (Jordan et al., 2024) for the matrices of the blocks, AdamW for the rest; or AdamW."""
    lr: float = 1e-3
    """Peak learning rate of AdamW's parameters."""
    muon_lr: float = 4e-3
    """Peak learning rate of Muon's parameters, in AdamW's units (updates matched in RMS)."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices; biases, norms and embeddings have none."""
    beta1: float = 0.9
    """AdamW's decay of the gradient's mean."""
    beta2: float = 0.95
    """AdamW's decay of the gradient's variance."""
    clip: float = 1.0
    """Largest gradient norm; a longer gradient is scaled down to it."""
    warmup: int = 100
    """Steps over which the learning rate rises from 0."""
    decay: float = 0.3
    """Share of the steps, at the end, over which the learning rate falls to 0."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; bf16 pays only where the processor has it."""
    seed: int = 1
    """Fixes the initial weights and the order of the data."""
    eval_every: int = 250
    """Steps between measurements on the validation texts."""
    save_every: int = 250
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "context", "eval_every", "save_every"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("lr", "muon_lr", "clip"):
            value = getattr(self, name)
            self._check(name, math.isfinite(value) and value > 0, "a positive number")
        for name in ("weight_decay", "warmup"):
            value = getattr(self, name)
            self._check(name, math.isfinite(value) and value >= 0, "0 or more")
        for name in ("beta1", "beta2"):
            self._check(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        self._check("decay", 0 <= self.decay <= 1, "a share of the steps, 0 to 1")
        self._check("seed", 0 <= self.seed < 1 << 63, "in 0 to 2**63 - 1")
        for name, known in (("optimizer", ("muon", "adamw")), ("precision", ("fp32", "bf16"))):
            self._check(name, getattr(self, name) in known, " or ".join(known))

    def _check(self, name: str, fits: bool, allowed: str) -> None:
        if not fits:
            raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be {allowed}")

    @property
    def tokens(self) -> int:
        """Tokens the whole run trains on, repeats included."""
        return self.steps * self.batch_size * self.context

    def lr_scale(self, step: int) -> float:
        """What the peak learning rates are multiplied by at `step`, counted from 0.

        Warm-up, stable, decay (Hu et al., 2024, "MiniCPM"), the decay linear: up to where it
        begins a run does not depend on `steps`, so a longer one can start from its checkpoint.
        """
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        decaying = self.decay * self.steps
        left = (self.steps - step) / decaying if decaying else 1.0
        return min(warm, left, 1.0)
