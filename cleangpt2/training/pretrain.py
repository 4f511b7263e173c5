"""Pretraining: predict the next token of packed text.

One loop, which under ``torchrun`` all processes walk through together. A run folder holds
``config.json``, ``metrics.jsonl``, ``samples.jsonl``, ``checkpoints/`` and, at the end, ``model/``;
running the same call again goes on from the newest checkpoint and ends with the same weights.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

from cleangpt2.data.batches import Batches, Tokens
from cleangpt2.files import check_writable
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training import changes, runfolder
from cleangpt2.training.begin import check, new_model, open_log, take_up
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.ending import export_when_due, return_to, save_when_due
from cleangpt2.training.forward import forward_pass
from cleangpt2.training.interrupt import StopRequest
from cleangpt2.training.optim import clip, set_lr
from cleangpt2.training.parallel import Replica
from cleangpt2.training.runlog import Rows
from cleangpt2.training.runtime import start
from cleangpt2.training.state import TrainState
from cleangpt2.training.step import accumulate
from cleangpt2.training.writer import Writer


def pretrain(
    model_config: GPT2Config,
    config: PretrainConfig,
    tokens: Tokens,
    folder: str | Path,
    *,
    start_from: GPT2 | None = None,
    validate: Callable[[GPT2], float] | None = None,
    sample: Callable[[GPT2], list[str]] | None = None,
    export: Callable[[GPT2, Path], object] | None = None,
    device: torch.device | str = "cpu",
    fresh: bool = False,
    change_settings: bool = False,
) -> GPT2:
    """Train a model, or go on where `folder` stopped.

    Args:
        tokens: Packed training text: of ``data.batches.pack``, or a row of ``data.corpus.Corpus``.
        folder: The run folder; created where there is none.
        start_from: A model of the same shape whose weights to begin with; drawn anew if not given.
        validate: Measures the model in bits per byte; logged every `eval_every` steps.
        sample: Texts of the model; kept every `sample_every` steps.
        export: Writes the model into a folder; called every `export_every` steps. None of the three
            may draw from torch's own random numbers. All processes call the first two, and `export`
            is called by the main one.
        device: Where to compute; under torchrun each process takes its own one of this kind.
        fresh: Remove the run that `folder` holds and start anew.
        change_settings: Go on with the run in `folder` though settings or data are others now.

    Returns:
        The model after the last step, or as it was at its best if `keep_best` is set: whole, in
        every process; on the CPU if it was sharded.

    Raises:
        ConfigError: Settings that exclude each other, or the folder is of another run.
        TrainingError: The run in `folder` is finished, or too many steps had to be skipped.
        OutputError: The folder cannot be written; whole checkpoints in it stay.
        DeviceError: The device computes wrongly.
    """
    with start(device) as runtime:
        with runtime.together():  # what one process refuses ends all of them
            check(model_config, config, start_from, measured=validate is not None)
            batches = Batches(tokens, B=config.batch_size, T=config.context, seed=config.seed)
            parts = batches.share(runtime.rank, runtime.world_size, config.micro_batches)
            folder = Path(folder)
            check_writable(folder)
            model = new_model(model_config, config, start_from, runtime.device)
        replica = Replica(model, runtime, config.sharding)
        state = TrainState(model, config)
        now = changes.record_of(model_config, config, start_from, tokens)
        first, changed = take_up(
            folder, now, state, replica, fresh=fresh, change_settings=change_settings
        )
        checkpoints = folder / runfolder.CHECKPOINTS
        with (
            contextlib.closing(
                runtime.on_main(lambda: open_log(folder, model_config, config, first, runtime))
            ) as log,
            contextlib.closing(
                runtime.on_main(lambda: Rows(folder / runfolder.SAMPLES, first))
            ) as samples,
            Writer(
                checkpoints, keep=config.keep, background=config.background_saves, runtime=runtime
            ) as writer,
            forward_pass(model, recompute=config.recompute, compile=config.compile),
            StopRequest() as stop,
        ):
            if changed:
                log.event(first - 1, changed_settings=changed)
            for step in range(first, config.steps):
                if state.best.is_final(config.patience):
                    break
                writer.check()
                log.begin()
                runtime.reseed(config.seed, step)
                lr = set_lr(state.optimizers, config, step)
                loss = accumulate(
                    replica,
                    [batches(step, rows) for rows in parts],
                    precision=config.precision,
                    scaler=state.scaler,
                    border=None if config.cross_documents else model_config.eos_token_id,
                )
                state.unscale()
                # The same numbers for all, so that all decide alike.
                loss, norm = runtime.broadcast((loss, clip(model, config.clip)))
                if wrong := state.guard.refusal(loss, norm, config.spike):
                    log.event(step, skipped=wrong, skipped_so_far=state.guard.skipped)
                    with runtime.together():
                        if runtime.is_main and state.guard.in_a_row >= config.max_skips:
                            raise state.guard.give_up(
                                step, wrong, batches, folder / runfolder.SKIPPED
                            )
                else:
                    state.update()
                    log.step(step, tokens=batches.B * batches.T, loss=loss, lr=lr, grad_norm=norm)
                state.clear()

                done, best = step + 1, False
                last = done == config.steps
                if validate and (last or done % config.eval_every == 0):
                    bits = runtime.broadcast(replica.evaluate(validate))
                    best = state.best.improved_by(bits, done)
                    log.event(step, bits_per_byte=round(bits, 4))
                    if state.best.is_final(config.patience):
                        better = f"no better than after step {state.best.step}"
                        log.event(step, stopped_early=better)
                        last = True
                if sample and (last or done % config.sample_every == 0):
                    for text in replica.evaluate(sample):
                        samples.add({"step": step, "text": text})
                export_when_due(export, config, done, folder / runfolder.EXPORTS, replica)
                save_when_due(writer, state, config, done, stop, replica, last=last, best=best)

        if config.keep_best:
            return_to(state.best.step, checkpoints, replica)
        return replica.whole().eval()
