"""Pretraining: predict the next token of packed text.

One process and one loop. A run folder holds ``config.json``, ``metrics.jsonl``, ``samples.jsonl``,
``checkpoints/`` and, at the end, ``model/``; running the same call again goes on from the newest
checkpoint and ends with the same weights.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

from cleangpt2.data.batches import Batches, Tokens
from cleangpt2.errors import CheckpointError, ConfigError
from cleangpt2.files import check_writable
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.selfcheck import attention_path
from cleangpt2.training import checkpoint, runfolder
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.forward import forward_pass
from cleangpt2.training.interrupt import StopRequest
from cleangpt2.training.optim import clip, set_lr
from cleangpt2.training.runlog import Rows, RunLog
from cleangpt2.training.state import TrainState
from cleangpt2.training.step import HALVES, accumulate
from cleangpt2.training.writer import Writer


def pretrain(
    model_config: GPT2Config,
    config: PretrainConfig,
    tokens: Tokens,
    folder: str | Path,
    *,
    validate: Callable[[GPT2], float] | None = None,
    sample: Callable[[GPT2], list[str]] | None = None,
    device: torch.device | str = "cpu",
    fresh: bool = False,
) -> GPT2:
    """Train a model from scratch, or go on where `folder` stopped.

    Args:
        tokens: Packed training text: of ``data.batches.pack``, or a row of ``data.corpus.Corpus``.
        folder: The run folder; created where there is none.
        validate: Measures the model in bits per byte; logged every `eval_every` steps.
        sample: Texts of the model; kept every `sample_every` steps. Neither of the two may draw
            from torch's own random numbers.
        fresh: Remove the run that `folder` holds and start anew.

    Returns:
        The model after the last step, or as it was at its best if `keep_best` is set.

    Raises:
        ConfigError: Settings that exclude each other, or the folder is of another run.
        TrainingError: The run in `folder` is finished, or too many steps had to be skipped.
        OutputError: The folder cannot be written; whole checkpoints in it stay.
        DeviceError: The device computes wrongly.
    """
    _check(model_config, config, measured=validate is not None)
    batches = Batches(tokens, B=config.batch_size, T=config.context, seed=config.seed)
    parts = batches.share(micro_batches=config.micro_batches)
    folder = Path(folder)
    check_writable(folder)
    torch.manual_seed(config.seed)
    model = GPT2(model_config).to(device).train()
    half = [HALVES[config.precision]] if config.precision in HALVES else []
    model.use_attention(attention_path(model_config, model.device, model.dtype, *half))
    state = TrainState(model, config)
    if fresh:  # only now that the new run can begin
        runfolder.remove(folder)
    before = runfolder.check_owner(folder, model_config, config)

    start, checkpoints = 0, folder / runfolder.CHECKPOINTS
    if (saved := checkpoint.newest(checkpoints)) is not None:
        start = state.load(saved)
        early = state.best.is_final(config.patience)
        runfolder.check_resume(folder, before, config, start, stopped_early=early)
    del saved  # as large as the run itself

    runfolder.claim(folder, model_config, config)
    with (
        contextlib.closing(
            RunLog(folder / runfolder.METRICS, steps=config.steps, start=start)
        ) as log,
        contextlib.closing(Rows(folder / runfolder.SAMPLES, start)) as samples,
        Writer(checkpoints, keep=config.keep, background=config.background_saves) as writer,
        forward_pass(model, recompute=config.recompute, compile=config.compile),
        StopRequest() as stop,
    ):
        for step in range(start, config.steps):
            if state.best.is_final(config.patience):
                break
            writer.check()
            lr = set_lr(state.optimizers, config, step)
            loss = accumulate(
                model,
                [batches(step, rows) for rows in parts],
                precision=config.precision,
                scaler=state.scaler,
            )
            state.unscale()
            norm = clip(model, config.clip)
            if wrong := state.guard.refusal(loss, norm, config.spike):
                log.event(step, skipped=wrong, skipped_so_far=state.guard.skipped)
                if state.guard.in_a_row >= config.max_skips:
                    raise state.guard.give_up(step, wrong, batches, folder / runfolder.SKIPPED)
            else:
                state.update()
                log.step(step, tokens=batches.B * batches.T, loss=loss, lr=lr, grad_norm=norm)
            state.clear()

            done, best = step + 1, False
            last = done == config.steps
            if validate and (last or done % config.eval_every == 0):
                bits = validate(model)
                best = state.best.improved_by(bits, done)
                log.event(step, bits_per_byte=round(bits, 4))
                if state.best.is_final(config.patience):
                    log.event(step, stopped_early=f"no better than after step {state.best.step}")
                    last = True
            if sample and (last or done % config.sample_every == 0):
                for text in sample(model):
                    samples.add({"step": step, "text": text})
            if (last or stop.requested or done % config.save_every == 0
                    or (best and config.keep_best)):  # fmt: skip
                spare = state.best.step if config.keep_best else None
                writer.save(done, state.after(done), spare=spare)
            if stop.requested and not last:
                writer.wait()
                raise KeyboardInterrupt(f"stopped after step {done}, saved; run it again to go on")

    if config.keep_best:
        _return_to(state.best.step, checkpoints, model)
    return model.eval()


def _check(model_config: GPT2Config, config: PretrainConfig, *, measured: bool) -> None:
    if config.context > model_config.n_positions:
        raise ConfigError(
            f"context {config.context} is longer than the model's {model_config.n_positions} "
            "positions: lower context or raise n_positions"
        )
    for name in ("patience", "keep_best"):
        if getattr(config, name) and not measured:
            raise ConfigError(
                f"{name} is {getattr(config, name)!r}, and there is nothing to measure with: "
                "give validation texts, or leave it out"
            )


def _return_to(step: int | None, checkpoints: Path, model: GPT2) -> None:
    saved = None if step is None else checkpoint.load(checkpoints, step)
    if saved is None:
        raise CheckpointError(
            f"the best checkpoint, of step {step} in {checkpoints}, is damaged or gone: run it "
            "again without keep_best in another folder"
        )
    model.load_state_dict(saved["model"])
