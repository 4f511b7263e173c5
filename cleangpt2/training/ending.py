"""What ends a step and a run: exports, checkpoints, a stop, and the model as it was at its best."""

from collections.abc import Callable
from pathlib import Path

from cleangpt2.errors import CheckpointError
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training import checkpoint, exports
from cleangpt2.training.interrupt import Stopped, StopRequest
from cleangpt2.training.parallel import Replica
from cleangpt2.training.settings import TrainingConfig
from cleangpt2.training.state import TrainState, load_trained
from cleangpt2.training.writer import Writer


def export_when_due(
    export: Callable[[GPT2, Path], object] | None,
    config: TrainingConfig,
    done: int,
    folder: Path,
    replica: Replica,
) -> None:
    """Let `export` write a model folder if one is due after `done` steps; all processes call this.

    Raises:
        OutputError: It cannot be written.
    """
    if export is None or not config.export_every or done % config.export_every:
        return
    whole = replica.whole()
    with replica.runtime.together():
        if replica.runtime.is_main:
            exports.write(folder, done, whole, export)


def save_when_due(
    writer: Writer,
    state: TrainState,
    config: TrainingConfig,
    done: int,
    stop: StopRequest,
    replica: Replica,
    *,
    last: bool,
    best: bool,
) -> None:
    """Write a checkpoint if one is due after `done` steps, and leave if the run is to stop.

    Args:
        last: No other step follows.
        best: The model has just been measured, and was never better.

    Raises:
        Stopped: One of the processes was asked to stop; the checkpoint is whole.
        OutputError: A checkpoint cannot be written.
    """
    stopping = replica.runtime.any(stop.requested)
    if last or stopping or done % config.save_every == 0 or (best and config.keep_best):
        spare = state.best.step if config.keep_best else None
        writer.save(done, state.after(done), spare=spare)
    if stopping and not last:
        writer.wait()
        raise Stopped(
            f"stopped after step {done}, saved; run it again to go on",
            elsewhere=not replica.runtime.is_main,
        )


def return_to(step: int | None, checkpoints: Path, replica: Replica) -> None:
    """Give the model the weights that it had after `step` steps; all processes call this.

    Raises:
        CheckpointError: The checkpoint is damaged or gone.
    """
    saved = None
    if step is not None:
        saved = checkpoint.load(checkpoints, step, runtime=replica.runtime, mesh=replica.mesh)
    with replica.runtime.together():
        if saved is None:
            raise CheckpointError(
                f"the best checkpoint, of step {step} in {checkpoints}, is damaged or gone: run "
                "it again without keep_best in another folder"
            )
    load_trained(replica.model, saved["model"])
