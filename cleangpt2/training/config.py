"""Settings of a pretraining run; no torch, so that ``--help`` is quick."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from cleangpt2.training.settings import TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig(TrainingConfig):
    """How a model is trained on packed text."""

    cross_documents: bool = True
    """A token sees the documents packed before its own, as GPT-2's did; or its own alone, and
    positions count from 0 in each."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon (Jordan et al., 2024) for the matrices of the blocks, AdamW for the rest; or AdamW."""
    lr: float = 1e-3
    """Peak learning rate of AdamW's parameters."""
    muon_lr: float = 4e-3
    """Peak learning rate of Muon's parameters, in AdamW's units (updates matched in RMS)."""
    warmup: int = 100
    """Steps over which the learning rate rises from 0."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """What follows warm-up: stable, then a linear decay; or half a cosine over all steps."""
    decay: float = 0.3
    """Share of the steps, at the end, over which the learning rate of "wsd" falls."""
    final_lr: float = 0.0
    """Share of the peak learning rate that it falls to."""
    sample_every: int = 1000
    """Steps between samples, written to samples.jsonl."""

    kind: ClassVar[str] = "pretraining"
    """What the run is called in messages."""
    remembered: ClassVar[tuple[str, ...]] = ("optimizer",)
    """Settings that decide what a checkpoint holds: with others it does not fit."""

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)  # `super()` does not know a class with slots
        for name in ("steps", "context", "sample_every"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("lr", "muon_lr"):
            value = getattr(self, name)
            self._check(name, math.isfinite(value) and value > 0, "a positive number")
        self._check("warmup", math.isfinite(self.warmup) and self.warmup >= 0, "0 or more")
        self._check("decay", 0 <= self.decay <= 1, "a share of the steps, 0 to 1")
        self._check("final_lr", 0 <= self.final_lr <= 1, "a share of the peak, 0 to 1")
        self._check_choice("optimizer", ("muon", "adamw"))
        self._check_choice("schedule", ("wsd", "cosine"))

    @property
    def peak_lr(self) -> float:
        """Peak learning rate of AdamW's parameters."""
        return self.lr

    @property
    def peak_muon_lr(self) -> float | None:
        """Peak learning rate of Muon's parameters; None where AdamW moves all of them."""
        return self.muon_lr if self.optimizer == "muon" else None

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
