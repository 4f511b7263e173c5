"""Pretraining: predict the next token of packed text.

One process and one loop. A run folder holds ``config.json``, ``metrics.jsonl``,
``checkpoints/`` and, at the end, ``model/``; running the same call again goes on from the newest
checkpoint and ends with the same weights.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from cleangpt2.data.batches import Batches
from cleangpt2.errors import ConfigError, TrainingError
from cleangpt2.files import check_writable
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training import checkpoint, runfolder
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.interrupt import StopRequest
from cleangpt2.training.optim import clip, optimizers, set_lr
from cleangpt2.training.runlog import RunLog


def pretrain(
    model_config: GPT2Config,
    config: PretrainConfig,
    tokens: np.ndarray,
    folder: str | Path,
    *,
    validate: Callable[[GPT2], float] | None = None,
    device: torch.device | str = "cpu",
    fresh: bool = False,
) -> GPT2:
    """Train a model from scratch, or go on where `folder` stopped.

    Args:
        tokens: Packed training text, see ``data.batches.pack``.
        folder: The run folder; created where there is none.
        validate: Measures the model in bits per byte; logged every `eval_every` steps.
        fresh: Remove the run that `folder` holds and start anew.

    Raises:
        ConfigError: `context` is longer than the model's, or the folder is of another run.
        TrainingError: The run in `folder` is finished, or the loss is not finite.
        OutputError: The folder cannot be written.
    """
    if config.context > model_config.n_positions:
        raise ConfigError(
            f"context {config.context} is longer than the model's {model_config.n_positions} "
            "positions: lower context or raise n_positions"
        )
    batches = Batches(tokens, B=config.batch_size, T=config.context, seed=config.seed)
    folder = Path(folder)
    check_writable(folder)
    torch.manual_seed(config.seed)
    model = GPT2(model_config).to(device).train()
    opts = optimizers(model, config)
    if fresh:  # only now that the new run can begin
        runfolder.remove(folder)
    before = runfolder.check_owner(folder, model_config, config)

    start = 0
    if (state := checkpoint.newest(folder / runfolder.CHECKPOINTS)) is not None:
        start = state["step"]
        runfolder.check_resume(folder, before, config, start)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(opts, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["rng"])

    def save(step: int) -> None:
        state = {
            "step": step,
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in opts],
            "rng": torch.get_rng_state(),
        }
        checkpoint.save(folder / runfolder.CHECKPOINTS, step, state)

    runfolder.claim(folder, model_config, config)
    log = RunLog(folder / runfolder.METRICS, steps=config.steps, start=start)
    with contextlib.closing(log), StopRequest() as stop:
        for step in range(start, config.steps):
            lr = set_lr(opts, config, step)
            loss = next_token_loss(model, *batches(step), precision=config.precision)
            loss.backward()
            norm = clip(model, config.clip)
            if not (torch.isfinite(loss) and np.isfinite(norm)):
                raise TrainingError(
                    f"loss {loss.item()} and gradient norm {norm} at step {step}: lower lr and "
                    f"start anew with --fresh; checkpoints in {folder} hold only finite weights"
                )
            for optimizer in opts:
                optimizer.step()
                optimizer.zero_grad()
            log.step(step, tokens=batches.B * batches.T, loss=loss.item(), lr=lr, grad_norm=norm)

            done = step + 1
            if validate and (done % config.eval_every == 0 or done == config.steps):
                log.event(step, bits_per_byte=round(validate(model), 4))
            if done % config.save_every == 0 or done == config.steps or stop.requested:
                save(done)
            if stop.requested and done < config.steps:
                raise KeyboardInterrupt(f"stopped after step {done}, saved; run it again to go on")
    return model.eval()


def next_token_loss(
    model: GPT2, inputs: torch.Tensor, targets: torch.Tensor, *, precision: str = "fp32"
) -> torch.Tensor:
    """Mean cross-entropy in nats of `targets` (B, T), the tokens that follow `inputs` (B, T)."""
    inputs, targets = inputs.to(model.device), targets.to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model.logits(model.hidden(inputs))
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
