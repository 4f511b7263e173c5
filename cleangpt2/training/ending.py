"""What comes after the last step: the model as it was at its best."""

from pathlib import Path

from cleangpt2.errors import CheckpointError
from cleangpt2.training import checkpoint
from cleangpt2.training.parallel import Replica
from cleangpt2.training.state import load_trained


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
