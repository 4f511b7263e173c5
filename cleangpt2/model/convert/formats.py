"""Which program wrote a model, and the way into its files.

    a folder or repository with config.json   Hugging Face's layout, ours
    ckpt.pt, or a folder that holds one       nanoGPT
    a .bin that starts with 20240326          llm.c
    hparams.json and model.ckpt.*             TensorFlow, as OpenAI published GPT-2

Files are known by what they hold where that can be told.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cleangpt2.errors import ConfigError
from cleangpt2.hub import Source
from cleangpt2.model.convert import huggingface, llmc, nanogpt, tensorflow
from cleangpt2.model.weights import Opened


@contextmanager
def open_model(
    source: Source, *, activation: str | None = None, local: bool = False
) -> Generator[Opened, None, None]:
    """Look into a model's files; its tensors can be read until the block ends.

    Args:
        source: Where the model is.
        activation: The nonlinearity of a nanoGPT checkpoint, which does not say it.
        local: Look for weights only on this machine; see ``huggingface.open_folder``.

    Raises:
        CheckpointError: Files that are missing, damaged, or of an unknown program.
        ConfigError: The files describe no GPT-2, or say themselves which activation they need.
    """
    checkpoint = find_checkpoint(source)
    if checkpoint is None:
        _refuse_activation(activation, "config.json")
        with huggingface.open_folder(source, local=local) as opened:
            yield opened
    elif checkpoint.suffix == ".index":
        _refuse_activation(activation, "the format")
        yield tensorflow.open_checkpoint(checkpoint)
    elif llmc.recognise(checkpoint):
        _refuse_activation(activation, "the format")
        yield llmc.open_checkpoint(checkpoint)
    else:
        yield nanogpt.open_checkpoint(checkpoint, activation)


def find_checkpoint(source: Source) -> Path | None:
    """The file of another program that stands for this model; ``None`` for a model folder.

    Raises:
        CheckpointError: TensorFlow's files, of which none is the newest checkpoint.
    """
    folder = source.folder
    if source.checkpoint is not None or folder is None or (folder / "config.json").is_file():
        return source.checkpoint
    if (path := folder / nanogpt.FILENAME).is_file():
        return path
    if (folder / tensorflow.HPARAMS).is_file() or (folder / tensorflow.STATE).is_file():
        return tensorflow.find_index(folder)
    return None


def _refuse_activation(activation: str | None, where: str) -> None:
    if activation is not None:
        raise ConfigError(
            f"activation {activation!r} was asked for, but {where} says which one this model has: "
            "leave it out; only a nanoGPT checkpoint leaves it open"
        )
