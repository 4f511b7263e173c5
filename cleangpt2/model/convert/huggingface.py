"""Model folders and repositories in Hugging Face's GPT-2 layout, which is ours.

Our parameters carry the checkpoint's names, so reading is the identity but for two habits of
that layout: every name may start with ``transformer.``, and the four linear layers of a block
are stored transposed, (in, out), because the original code multiplied from the left ("Conv1D").
"""

import dataclasses
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cleangpt2.errors import CheckpointError, ConfigError
from cleangpt2.files import read_text
from cleangpt2.hub import Source
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.weights import Opened, open_weights, weight_files

PREFIX = "transformer."
TRANSPOSED = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")

# Causal masks that old checkpoints carry along; they are constants, not weights.
_MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)$")


@contextmanager
def open_folder(source: Source, *, local: bool = False) -> Generator[Opened, None, None]:
    """Look into a model folder or repository; its tensors can be read until the block ends.

    Args:
        source: Where the model is.
        local: Look for weights only on this machine, as ``info`` does; there may be none. Where
            ``config.json`` is here, nothing is asked of the network.

    Raises:
        CheckpointError: No weights, or files that are damaged.
        ConfigError: ``config.json`` describes a model that is not GPT-2.
        CleanGPT2Error: A file cannot be had; see ``Source.file``.
    """
    config = read_config((local and source.local("config.json")) or source.file("config.json"))
    files = weight_files(source, local=local)
    if not files and not local:
        raise CheckpointError(
            f"{source.name} has no weights: model.safetensors or pytorch_model.bin "
            "(or their index.json with the files it lists) should stand beside config.json"
        )
    with open_weights(files) as stored:
        named = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
        tensors = {
            name: dataclasses.replace(tensor, transposed=bool(TRANSPOSED.search(name)))
            for name, tensor in named.items()
            if not _MASKS.match(name)
        }
        yield Opened(config=config, tensors=tensors, files=tuple(files), kind="model folder")


def read_config(path: Path) -> GPT2Config:
    """The configuration in a ``config.json``.

    Raises:
        CheckpointError: The file is no JSON object.
        ConfigError: It describes another model, or a switch that is not supported.
    """
    try:
        values = json.loads(read_text(path))
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable as JSON ({error}): copy it again") from error
    try:
        return GPT2Config.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
