"""Every error a user can cause.

Each message is one line that names the value, the limit and the way out. The command
line prints that line and exits with 1; in Python the classes also derive from the built-in
a caller would expect (``ConfigError`` is a ``ValueError``).
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CleanGPT2Error(Exception):
    """Base of all errors below; catch it to catch every mistake of the user's."""

    elsewhere = False
    """Whether another process of the same run tells the user about it."""


class ConfigError(CleanGPT2Error, ValueError):
    """A configuration value is out of range, of the wrong type, or not supported."""


class TokenizerError(CleanGPT2Error, ValueError):
    """Text that cannot be encoded, ids that cannot be decoded, or broken vocabulary files."""


class ModelNotFoundError(CleanGPT2Error):
    """No bundled model, folder or hub repository has this name."""


class OfflineError(CleanGPT2Error):
    """A file has to be downloaded and the hub cannot be reached."""


class CheckpointError(CleanGPT2Error):
    """Weights that are corrupt, truncated, incomplete, of other shapes or of another model."""


class ContextLengthError(CleanGPT2Error, ValueError):
    """More tokens than the model has positions for."""


class SamplingError(CleanGPT2Error, ValueError):
    """A sampling setting outside its range."""


class InputError(CleanGPT2Error, ValueError):
    """Token ids of the wrong type, shape or range."""


class DeviceError(CleanGPT2Error):
    """A device or data type that this machine does not have, or that computes wrongly."""


class DataError(CleanGPT2Error, ValueError):
    """A corpus or a token file that is empty, malformed or of another vocabulary."""


class TrainingError(CleanGPT2Error):
    """A training run that cannot start or cannot go on."""


class FinishedError(TrainingError):
    """A training run that has nothing left to do."""


class OutputError(CleanGPT2Error):
    """A file or folder that cannot be written."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The tail of an error message that offers the nearest choice.

    >>> did_you_mean("gtp2", ["gpt2", "story"])
    " Did you mean 'gpt2'?"
    >>> did_you_mean("xyz", ["gpt2", "story"])
    ''
    """
    nearest = get_close_matches(word, list(choices), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
