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
    micro_batches: int = 1
    """Parts that a batch is computed in, one after the other: the same step in less memory."""
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
    schedule: Literal["wsd", "cosine"] = "wsd"
    """What follows warm-up: stable, then a linear decay; or half a cosine over all steps."""
    decay: float = 0.3
    """Share of the steps, at the end, over which the learning rate of "wsd" falls."""
    final_lr: float = 0.0
    """Share of the peak learning rate that it falls to."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; the halves pay only where the processor has them. fp16
    scales its loss, so that small gradients do not vanish."""
    recompute: bool = False
    """Keep no activations inside the blocks and compute them twice: less memory, more time."""
    compile: bool = False
    """Compile the forward pass: a minute at the start, faster steps on a GPU."""
    seed: int = 1
    """Fixes the initial weights and the order of the data."""
    eval_every: int = 250
    """Steps between measurements on the validation texts."""
    patience: int | None = None
    """Stop early after so many measurements in a row that were no new best."""
    sample_every: int = 1000
    """Steps between samples, written to samples.jsonl."""
    save_every: int = 250
    """Steps between checkpoints."""
    keep: int = 2
    """Newest checkpoints that stay."""
    keep_best: bool = False
    """Save at each new best measurement, keep that checkpoint, and end with its weights."""
    background_saves: bool = False
    """Write checkpoints while training goes on; costs the memory of a copy."""
    spike: float | None = 4.0
    """Nats above the mean of recent losses at which a step is skipped; None skips no spikes."""
    max_skips: int = 10
    """Skipped steps in a row that end the run; those with no finite gradient are skipped too."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batches", "context", "eval_every",
                     "sample_every", "save_every", "keep", "max_skips"):  # fmt: skip
            self._check(name, getattr(self, name) >= 1, "at least 1")
        self._check("patience", self.patience is None or self.patience >= 1, "at least 1, or None")
        for name in ("lr", "muon_lr", "clip"):
            value = getattr(self, name)
            self._check(name, math.isfinite(value) and value > 0, "a positive number")
        for name in ("weight_decay", "warmup"):
            value = getattr(self, name)
            self._check(name, math.isfinite(value) and value >= 0, "0 or more")
        for name in ("beta1", "beta2"):
            self._check(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        self._check("decay", 0 <= self.decay <= 1, "a share of the steps, 0 to 1")
        self._check("final_lr", 0 <= self.final_lr <= 1, "a share of the peak, 0 to 1")
        self._check("spike", self.spike is None or self.spike > 0, "a positive number, or None")
        self._check("seed", 0 <= self.seed < 1 << 63, "in 0 to 2**63 - 1")
        for name, known in (
            ("optimizer", ("muon", "adamw")),
            ("schedule", ("wsd", "cosine")),
            ("precision", ("fp32", "bf16", "fp16")),
        ):
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

        It rises to 1 in the warm-up and then falls to `final_lr`, which step number `steps` would
        have.
        """
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        falling = self._cosine(step) if self.schedule == "cosine" else self._stable_decay(step)
        return min(warm, self.final_lr + (1 - self.final_lr) * falling)

    def _stable_decay(self, step: int) -> float:
        """1, then linearly to 0 (Hu et al., 2024, "MiniCPM").

        Up to where it begins to fall a run does not depend on `steps`, so a longer one can start
        from its checkpoint.
        """
        decaying = self.decay * self.steps
        return min(1.0, (self.steps - step) / decaying) if decaying else 1.0

    def _cosine(self, step: int) -> float:
        """Half a cosine from 1 to 0 (Loshchilov & Hutter, 2017), from the end of warm-up on."""
        falling = self.steps - self.warmup
        done = max(0.0, (step - self.warmup) / falling) if falling > 0 else 0.0
        return 0.5 * (1 + math.cos(math.pi * done))
