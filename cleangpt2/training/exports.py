"""Model folders of a run that is still going on: ``exports/step-N``, whole or not there."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cleangpt2.errors import OutputError
from cleangpt2.model.gpt2 import GPT2


def write(folder: Path, step: int, model: GPT2, export: Callable[[GPT2, Path], object]) -> Path:
    """Let `export` write the model into ``folder/step-N``; return that folder.

    Raises:
        OutputError: It cannot be written; earlier exports stay.
    """
    final, partial = folder / f"step-{step:07d}", folder / f".partial-{step:07d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        export(model, partial)
        if final.exists():  # of a run that died after it, and came back from a checkpoint before it
            shutil.rmtree(final)
        os.replace(partial, final)
    except OSError as error:
        raise OutputError(
            f"{final} cannot be written: {error.strerror or error}; "
            "make room and run it again to go on from the last checkpoint"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final
