"""The numbers of a run as an event file that TensorBoard draws; an extra."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from cleangpt2.errors import ConfigError, OutputError


def check_installed() -> None:
    """Refuse, before any work is done, to write event files without TensorBoard.

    Raises:
        ConfigError: It is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError(
            "tensorboard is True, and the package is not installed: "
            "pip install 'cleangpt2[track]', or leave it out"
        )


class EventFile:
    """Takes the rows of the run log; ``tensorboard --logdir <folder>`` shows them as they come."""

    def __init__(self, folder: Path, start: int) -> None:
        """Begin a file beside those of earlier calls.

        It tells TensorBoard to forget what they say of the steps from `start` on, which come again.
        """
        from torch.utils.tensorboard import SummaryWriter  # takes seconds

        self.folder = folder
        try:
            self.writer = SummaryWriter(str(folder), purge_step=start + 1)
        except OSError as error:
            raise self._failed(error) from error

    def add(self, step: int, row: Mapping[str, float | str]) -> None:
        """Write the numbers of a row after `step` steps; words have no place in a curve.

        Raises:
            OutputError: It cannot be written; so too of `close`.
        """
        try:
            for name, value in row.items():
                if isinstance(value, int | float):
                    self.writer.add_scalar(name, value, step)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Flush and close the file."""
        try:
            self.writer.close()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write to {self.folder}: {error.strerror or error}; "
            "make room and run it again to go on from the last checkpoint"
        )
