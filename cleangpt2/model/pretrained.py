"""Read and write model folders in Hugging Face's GPT-2 layout.

Our parameters carry the checkpoint's names, so loading is the identity but for two habits of
that layout: every name may start with ``transformer.``, and the four linear layers of a block
are stored transposed, (in, out), because the original code multiplied from the left ("Conv1D").
Both end here; nothing else in the package knows of them.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cleangpt2.device import choose, choose_dtype
from cleangpt2.errors import CheckpointError, ConfigError, OutputError, TokenizerError
from cleangpt2.files import written_aside
from cleangpt2.hub import locate
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.weights import StoredTensor, open_weights, weight_files
from cleangpt2.tokenizer import Tokenizer

_TRANSPOSED = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
_LAYER = re.compile(r"h\.(\d{1,9})\.")
# Causal masks that old checkpoints carry along; they are constants, not weights.
_MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)$")


def load(
    name: str | Path, *, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> tuple[GPT2, Tokenizer]:
    """A model, ready for inference, and its tokenizer.

    Args:
        name: ``story`` or ``tiny``, ``gpt2`` and its sizes, a hub id, or a folder.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ...
        dtype: ``auto`` (float32), ``float32``, ``bfloat16``, ``float16``.

    Raises:
        ModelNotFoundError: No such model, or a file of it is missing.
        OfflineError: It has to be downloaded and the hub cannot be reached.
        CheckpointError: Weights that are damaged or that do not fit ``config.json``.
        ConfigError: ``config.json`` describes a model that is not GPT-2.
        TokenizerError: A tokenizer that is missing, broken, or larger than the model's vocabulary.
        DeviceError: A device or data type that this machine does not have.
    """
    tokenizer = Tokenizer.from_pretrained(name)
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
    config = read_config(source.file("config.json"))
    files = weight_files(source)
    if not files:
        raise CheckpointError(
            f"{source.name} has no weights: model.safetensors or pytorch_model.bin "
            "(or their index.json with the files it lists) should stand beside config.json"
        )
    with open_weights(files) as stored:
        tensors = match(stored, config, source.name)
        model = outline(config)
        weights = {}
        for key, parameter in model.named_parameters():
            tensor = tensors[key].read()
            tensor = tensor.t() if _TRANSPOSED.search(key) else tensor
            place = torch.empty(parameter.shape, dtype=target_dtype, device=target)
            weights[key] = place.copy_(tensor)
    model.load_state_dict(weights, assign=True)
    return model.eval()


class _NoDraw(TorchFunctionMode):
    """Skips ``torch.nn.init``; on the meta device it would import seconds of compiler code."""

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def outline(config: GPT2Config) -> GPT2:
    """A model that has names and shapes but no memory: every parameter is on the meta device."""
    with torch.device("meta"), _NoDraw():
        return GPT2(config)


def read_config(path: Path) -> GPT2Config:
    """The configuration in a ``config.json``.

    Raises:
        CheckpointError: The file is no JSON object.
        ConfigError: It describes another model, or a switch that is not supported.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable as JSON ({error}): copy it again") from error
    try:
        return GPT2Config.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def match(
    stored: dict[str, StoredTensor], config: GPT2Config, owner: str
) -> dict[str, StoredTensor]:
    """The stored tensors under our parameters' names, if they are what `config` asks for.

    Raises:
        CheckpointError: One line that counts what is missing, unexpected or of another shape.
    """
    given = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    given = {name: tensor for name, tensor in given.items() if not _MASKS.match(name)}

    numbers = [int(found[1]) for found in map(_LAYER.match, given) if found]
    layers = max(numbers, default=-1) + 1
    if layers != config.n_layer:  # asked first, for a million layers would take long to lay out
        raise CheckpointError(
            f"{owner}: config.json asks for {config.n_layer} layers, the weights have {layers}; "
            "use the config.json that belongs to them"
        )
    expected = {
        name: tuple(parameter.t().shape if _TRANSPOSED.search(name) else parameter.shape)
        for name, parameter in outline(config).named_parameters()
    }
    if config.tie_word_embeddings and "lm_head.weight" in given:
        _check_tied(given.pop("lm_head.weight"), given.get("wte.weight"), owner)

    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    misshapen = [
        f"{name} is {_shape(given[name].shape)}, not {_shape(shape)}"
        for name, shape in expected.items()
        if name in given and given[name].shape != shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in found.items()
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{owner}: of {len(expected)} tensors that config.json asks for: "
            f"{'; '.join(problems)}; use the config.json that belongs to these weights"
        )
    for name in expected:
        if isinstance(given[name].dtype, str):
            raise CheckpointError(
                f"{owner}: {name} is stored as {given[name].dtype}; "
                "only unquantised float weights can be read"
            )
    return given


def save_model(model: GPT2, folder: str | Path, *, dtype: str | torch.dtype | None = None) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``generation_config.json``.

    transformers opens the folder with nothing missing and nothing unexpected. Files are written
    aside and moved into place together; other files of the folder stay.

    Args:
        model: The model to save.
        folder: Made if it does not exist.
        dtype: Data type of the stored weights; ``None`` keeps the model's.

    Raises:
        OutputError: The folder cannot be written, or a weight does not fit `dtype`.
    """
    stored_dtype = model.dtype if dtype is None else choose_dtype(dtype)
    tensors = dict(_as_stored(model, stored_dtype))
    config = model.config.to_dict() | {"torch_dtype": str(stored_dtype).removeprefix("torch.")}
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    generation = {key: value for key, value in ids.items() if value is not None}
    with written_aside(Path(folder).expanduser()) as scratch:
        _save_tensors(tensors, scratch / "model.safetensors")
        for name, content in (("config", config), ("generation_config", generation)):
            text = json.dumps(content, indent=2, sort_keys=True) + "\n"
            (scratch / f"{name}.json").write_text(text, encoding="utf-8", newline="\n")
        # safetensors lets nobody else read its file, whatever the umask says.
        shutil.copymode(scratch / "config.json", scratch / "model.safetensors")


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk, in safetensors' own words
        raise OSError(str(error)) from error


def _as_stored(model: GPT2, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The parameters under the names and in the layout of the folder."""
    for name, parameter in model.named_parameters():
        tensor = parameter.detach().to("cpu", dtype)
        if not torch.isfinite(tensor).all() and torch.isfinite(parameter).all():
            raise OutputError(
                f"{name} reaches {parameter.abs().max():.3g}, more than {dtype} can hold "
                f"({torch.finfo(dtype).max:.3g}): save as bfloat16 or float32"
            )
        key = name if name == "lm_head.weight" else f"transformer.{name}"
        yield key, (tensor.t() if _TRANSPOSED.search(name) else tensor).contiguous()


def _check_tied(head: StoredTensor, embedding: StoredTensor | None, owner: str) -> None:
    """An output layer stored beside the token embedding it is tied to must be the same."""
    if embedding is not None and not torch.equal(head.read(), embedding.read()):
        raise CheckpointError(
            f"{owner}: lm_head.weight differs from wte.weight, although config.json ties them; "
            'set "tie_word_embeddings": false there to load both'
        )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"
