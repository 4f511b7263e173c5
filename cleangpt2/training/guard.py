"""Steps that must not move the weights: gradients that are not finite, and spikes of the loss.

Such a step is skipped and counted. Its data passes by, as in Chowdhery et al. (2022, "PaLM",
section 5.1), who restarted before each spike and left out the batches around it. Many in a row
mean that the weights are lost already: the run ends and keeps the batches for inspection.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from cleangpt2.errors import TrainingError

MEMORY = 0.9  # of the mean: about the last ten losses


@runtime_checkable
class Inspectable(Protocol):
    """Batches of any kind."""

    def content(self, steps: Int64[np.ndarray, " N"]) -> dict[str, Any]:
        """All that these steps train on, by name."""
        ...


@dataclass(kw_only=True, slots=True)
class Guard:
    """What is remembered from step to step; part of a checkpoint."""

    mean: float | None = None
    """Mean of recent losses, older ones counting less; skipped steps are not in it."""
    in_a_row: int = 0
    """Skipped steps since the last good one."""
    skipped: int = 0
    """Skipped steps of the whole run."""

    def refusal(self, loss: float, grad_norm: float, spike: float | None) -> str | None:
        """Why this step must be skipped; None if it may be taken.

        Args:
            loss: In nats a token.
            grad_norm: Before it was clipped.
            spike: How far a loss may lie above the mean; None for any distance.
        """
        reason = None
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            reason = f"loss {loss:.4g} and gradient norm {grad_norm:.4g}"
        elif spike is not None and self.mean is not None and loss > self.mean + spike:
            reason = f"loss {loss:.4g} after a mean of {self.mean:.4g}"
        if reason is None:
            self.mean = loss if self.mean is None else MEMORY * self.mean + (1 - MEMORY) * loss
            self.in_a_row = 0
        else:
            self.in_a_row += 1
            self.skipped += 1
        return reason

    def give_up(self, step: int, reason: str, batches: Inspectable, path: Path) -> TrainingError:
        """Save the batches of the steps skipped in a row, the last of them `step`, for the error.

        `path` becomes an npz file: ``steps`` (N,), and what ``batches.content`` gives for them.
        """
        steps = np.arange(step - self.in_a_row + 1, step + 1)
        kept = f"are in {path}"
        try:
            np.savez(path, steps=steps, **batches.content(steps))
        except OSError as error:
            kept = f"could not be saved ({error.strerror})"
        return TrainingError(
            f"{self.in_a_row} steps in a row had to be skipped, the last one step {step} with "
            f"{reason}: lower lr and start anew with --fresh; their batches {kept}, and "
            "checkpoints hold only finite weights"
        )
