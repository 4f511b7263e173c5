"""Load a model of any known format; save it as a model folder in Hugging Face's GPT-2 layout.

The formats are in ``convert``, the layout in ``convert/huggingface.py``.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cleangpt2 import lineage
from cleangpt2.device import choose, choose_dtype
from cleangpt2.errors import (
    CheckpointError,
    DeviceError,
    ModelNotFoundError,
    OutputError,
    TokenizerError,
)
from cleangpt2.files import written_aside
from cleangpt2.hub import locate
from cleangpt2.model.adapter_files import load_adapter, only_adapter_in
from cleangpt2.model.convert import tensorflow
from cleangpt2.model.convert.formats import find_checkpoint, open_model
from cleangpt2.model.convert.huggingface import PREFIX, TRANSPOSED
from cleangpt2.model.convert.tokenizers import tokenizer_of
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.lora import adapters
from cleangpt2.model.matching import match, outline
from cleangpt2.model.selfcheck import attention_path
from cleangpt2.model.weights import Opened
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.files import has_vocabulary, vocabulary_files


def load(
    name: str | Path, *, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> tuple[GPT2, Tokenizer]:
    """A model, ready for inference, and its tokenizer.

    Args:
        name: ``story`` or ``tiny``, ``gpt2`` and its sizes, a hub id, a folder, or a checkpoint of
            nanoGPT, llm.c or TensorFlow. The folder of an adapter gives its base with the adapter.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ...
        dtype: ``auto`` (float32), ``float32``, ``bfloat16``, ``float16``.

    Raises:
        ModelNotFoundError: No such model, or a file of it is missing.
        OfflineError: It has to be downloaded and the hub cannot be reached.
        CheckpointError: Weights that are damaged or that do not fit ``config.json``.
        ConfigError: ``config.json`` describes a model that is not GPT-2.
        TokenizerError: A tokenizer that is missing, broken, or larger than the model's vocabulary.
        DeviceError: A device or data type that this machine does not have, or whose numbers are
            wrong.
    """
    source = locate(name)
    base = only_adapter_in(source.folder)
    # An adapter's folder has the tokenizer it was trained with, or else its base's is meant.
    tokenizer = tokenizer_of(source if base is None or has_vocabulary(source) else locate(base))
    model = load_model(name, device=device, dtype=dtype)
    # More rows than tokens is common (padding to a multiple of 64); the reverse would crash later.
    if tokenizer.vocab_size > model.config.vocab_size:
        raise TokenizerError(
            f"the tokenizer of {str(name)!r} has {tokenizer.vocab_size} tokens, the model only "
            f"{model.config.vocab_size} embeddings: they do not belong together"
        )
    return model, tokenizer


def load_model(
    name: str | Path, *, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> GPT2:
    """A model without its tokenizer; see `load` for the arguments and errors.

    The weights are read tensor by tensor into their final place, so the peak of memory is the
    model in `dtype` plus one tensor.
    """
    target = choose(device)
    target_dtype = choose_dtype(dtype, target)
    source = locate(name)
    if source.folder is not None and (base := only_adapter_in(source.folder)) is not None:
        return _with_adapter(source.folder, base, device=target, dtype=target_dtype)
    with open_model(source) as opened:
        return model_from(opened, source.name, device=target, dtype=target_dtype)


def _with_adapter(folder: Path, base: str, *, device: torch.device, dtype: torch.dtype) -> GPT2:
    """The base of an adapter, with the adapter in use."""
    if only_adapter_in(locate(base).folder) is not None:
        raise CheckpointError(
            f"{folder} is an adapter of {base!r}, which holds an adapter itself: merge that one "
            "into its model first"
        )
    model = load_model(base, device=device, dtype=dtype)
    load_adapter(model, folder)
    return model.eval()


def model_from(
    opened: Opened,
    owner: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[], object] = lambda: None,
) -> GPT2:
    """The model of files that are open.

    Args:
        opened: The files; see ``convert.formats.open_model``.
        owner: The model's name, for messages.
        device: Where to put it.
        dtype: What to compute in.
        progress: Called after each tensor.

    Raises:
        CheckpointError: Weights that are damaged or that do not fit the configuration.
        DeviceError: A device that computes wrongly, or that the model does not fit on.
    """
    tensors = match(opened, owner)
    model = outline(opened.config)
    model.use_attention(attention_path(opened.config, device, dtype))
    weights = {}
    for key, parameter in model.named_parameters():
        weights[key] = _room_for(parameter, device, dtype).copy_(tensors[key].weight())
        progress()
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _room_for(outline: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    try:
        return torch.empty(outline.shape, dtype=dtype, device=device)
    except RuntimeError as error:  # a GPU's has a class of its own, the CPU's has none
        raise DeviceError(
            f"{device} has no memory left for {outline.numel() * dtype.itemsize:,} bytes of "
            "weights: close other programs, choose a smaller model, or dtype='bfloat16'"
        ) from error


def save(
    model: GPT2,
    tokenizer: Tokenizer | None,
    folder: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    made_by: str = "save",
    parent: str | Path | None = None,
    data: Sequence[Path] = (),
    settings: Path | None = None,
) -> None:
    """Write a model folder, the counterpart of `load`: weights, config, tokenizer and lineage.

    transformers opens the folder with nothing missing and nothing unexpected. Files are written
    aside and moved into place together; other files of the folder stay.

    Args:
        model: The model to save.
        tokenizer: Its tokenizer; ``None`` leaves the one that the folder may have.
        folder: Made if it does not exist.
        dtype: Data type of the stored weights; ``None`` keeps the model's.
        made_by: What made the model, for ``lineage.json``.
        parent: The model it was made from, as `load` takes it.
        data: The files it was trained on.
        settings: The ``config.json`` of the run that made it.

    Raises:
        OutputError: The folder cannot be written, or a weight does not fit `dtype`.
        ModelNotFoundError: `parent` is not on this machine.
        DataError: A file of `data` is not there.
    """
    folder = Path(folder).expanduser()
    made = lineage.Lineage(
        made_by=made_by,
        code=lineage.code(),
        parent=None if parent is None else _parent(parent),
        data=lineage.fingerprints(data),
        settings=None if settings is None else lineage.fingerprint(settings),
    )
    stored_dtype = model.dtype if dtype is None else choose_dtype(dtype)
    tensors = dict(_as_stored(model, stored_dtype))
    config = model.config.to_dict() | {"torch_dtype": str(stored_dtype).removeprefix("torch.")}
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generation = {key: value for key, value in ids.items() if value is not None}
    contents = {
        f"{name}.json": json.dumps(content, indent=2, sort_keys=True) + "\n"
        for name, content in (("config", config), ("generation_config", generation))
    }
    if tokenizer is not None:
        contents |= vocabulary_files(tokenizer.vocabulary, folder)
    with written_aside(folder) as scratch:
        _save_tensors(tensors, scratch / "model.safetensors")
        for name, text in contents.items():
            (scratch / name).write_text(text, encoding="utf-8", newline="\n")
        # safetensors lets nobody else read its file, whatever the umask says.
        shutil.copymode(scratch / "config.json", scratch / "model.safetensors")
        lineage.write(scratch, folder, made)


def save_model(model: GPT2, folder: str | Path, *, dtype: str | torch.dtype | None = None) -> None:
    """Write a model folder without its tokenizer; see `save`."""
    save(model, None, folder, dtype=dtype)


def _parent(name: str | Path) -> lineage.Parent:
    """The model that another one was made from, as its lineage names it."""
    source, path = locate(name), Path(name).expanduser()
    checkpoint = find_checkpoint(source)
    if checkpoint is not None and checkpoint.suffix != ".index":
        return lineage.Parent(name=checkpoint.name, files=lineage.fingerprints([checkpoint]))
    config = source.local("config.json")
    place = source.folder or (config and config.parent)
    if place is None:
        raise ModelNotFoundError(
            f"the parent {source.name!r} is not on this machine, so its files cannot be recorded: "
            "load it first, or give its folder"
        )
    # Where a folder lies is nobody's business, and "model" alone would tell nothing.
    is_path = source.folder and path.is_absolute()
    shown = "/".join(path.parts[-2:]) if is_path else source.name
    # What TensorFlow calls its files is the trainer's choice, so the folder alone cannot tell.
    return lineage.parent(shown, place, tensorflow.files_of(checkpoint) if checkpoint else ())


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk, in safetensors' own words
        raise OSError(str(error)) from error


def _as_stored(model: GPT2, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The parameters under the names and in the layout of the folder."""
    if carried := adapters(model):
        raise OutputError(
            f"the model carries adapters ({', '.join(carried)}), which a model folder has no place "
            "for: merge them (lora.merge), or write each alone (save_adapter)"
        )
    for name, parameter in model.named_parameters():
        tensor = parameter.detach().to("cpu", dtype)
        if not torch.isfinite(tensor).all() and torch.isfinite(parameter).all():
            raise OutputError(
                f"{name} reaches {parameter.abs().max():.3g}, more than {dtype} can hold "
                f"({torch.finfo(dtype).max:.3g}): save as bfloat16 or float32"
            )
        key = name if name == "lm_head.weight" else PREFIX + name
        yield key, (tensor.t() if TRANSPOSED.search(name) else tensor).contiguous()
