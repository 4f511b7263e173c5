"""Checkpoints of karpathy/llm.c: one file, a header and then the parameters in a fixed order.

The header is 256 numbers of four bytes:

    20240326, version (3: float32, 5: bfloat16), maxT, V, L, H, C, Vp (V padded), then zeros

maxT is the context. A kind of parameter follows for all layers together, its matrices (out, in):

    wte (Vp, C)  wpe (maxT, C)  ln_1  c_attn  c_proj  ln_2  c_fc  c_proj  ln_f

each a weight and a bias but for the first two. GELU has the tanh form, the output is tied.
"""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cleangpt2.errors import CheckpointError, ConfigError
from cleangpt2.model.config import GPT2Config, end_of_text
from cleangpt2.model.weights import Opened, StoredTensor

MAGIC = 20240326
_OTHERS = {
    20240327: "a state for debugging, made together with a model",
    20240520: "tokens to train on",
    20240522: "a test of HellaSwag",
    20240328: "a tokenizer",
}
_HEADER = 4 * 256
_DTYPES = {3: torch.float32, 5: torch.bfloat16}


def recognise(path: Path) -> bool:
    """Whether a file starts as llm.c's files do.

    Raises:
        CheckpointError: It is one of llm.c's that holds no model.
    """
    with path.open("rb") as file:
        magic = int.from_bytes(file.read(4), "little")
    if magic in _OTHERS:
        raise CheckpointError(
            f"{path} is a file of llm.c with {_OTHERS[magic]}: give its model, such as "
            "gpt2_124M.bin or model_00019560.bin"
        )
    return magic == MAGIC


def open_checkpoint(path: Path) -> Opened:
    """Look into a model of llm.c.

    Raises:
        CheckpointError: Another version, or a file that is longer or shorter than its header says.
        ConfigError: A header that describes no GPT-2.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER:
        raise CheckpointError(f"{path} is damaged: it ends in its header; copy it again")
    _, version, maxT, V, L, H, C, Vp = (int(n) for n in np.frombuffer(header, "<i4", count=8))
    if version not in _DTYPES:
        raise CheckpointError(
            f"{path} is of llm.c's version {version}; 3 (float32) and 5 (bfloat16) can be read: "
            "write it again with llm.c's train_gpt2.py"
        )
    try:
        end = end_of_text(V)
        config = GPT2Config(
            vocab_size=V,
            n_positions=maxT,
            n_embd=C,
            n_layer=L,
            n_head=H,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    dtype = _DTYPES[version]
    _check_size(path, config, Vp, dtype)
    tensors = {}
    offset = _HEADER
    for name, shape in _places(config):
        tensors[name] = StoredTensor(
            shape=shape, dtype=dtype, read=partial(_read, path, offset, shape, dtype)
        )
        padded = (Vp, C) if name == "wte.weight" else shape
        offset += math.prod(padded) * dtype.itemsize
    return Opened(
        config=config,
        tensors=tensors,
        files=(path,),
        kind="llm.c checkpoint",
        described_by="header",
    )


def _check_size(path: Path, config: GPT2Config, Vp: int, dtype: torch.dtype) -> None:
    """Refuse a file that is not as long as its header says, before a layer is laid out."""
    C = config.n_embd
    block = sum(math.prod(shape) for shape in _block(C).values())
    numbers = (Vp + config.n_positions + 2) * C + config.n_layer * block
    expected = _HEADER + numbers * dtype.itemsize
    size = path.stat().st_size
    if Vp < config.vocab_size or size != expected:
        raise CheckpointError(
            f"{path} is damaged: it has {size:,} bytes, its header asks for {expected:,} with "
            f"{Vp:,} rows for {config.vocab_size:,} tokens; copy it again"
        )


def _places(config: GPT2Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of the file; the embedding without its padding."""
    C = config.n_embd
    yield "wte.weight", (config.vocab_size, C)
    yield "wpe.weight", (config.n_positions, C)
    for name, shape in _block(C).items():
        for layer in range(config.n_layer):
            yield f"h.{layer}.{name}", shape
    yield "ln_f.weight", (C,)
    yield "ln_f.bias", (C,)


def _block(C: int) -> dict[str, tuple[int, ...]]:
    """The parameters of one layer in the order of the file."""
    return {
        "ln_1.weight": (C,),
        "ln_1.bias": (C,),
        "attn.c_attn.weight": (3 * C, C),
        "attn.c_attn.bias": (3 * C,),
        "attn.c_proj.weight": (C, C),
        "attn.c_proj.bias": (C,),
        "ln_2.weight": (C,),
        "ln_2.bias": (C,),
        "mlp.c_fc.weight": (4 * C, C),
        "mlp.c_fc.bias": (4 * C,),
        "mlp.c_proj.weight": (C, 4 * C),
        "mlp.c_proj.bias": (C,),
    }


def _read(path: Path, offset: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    count = math.prod(shape) * dtype.itemsize
    data = np.fromfile(path, dtype=np.uint8, count=count, offset=offset)
    if data.size < count:
        raise CheckpointError(f"{path} is damaged: it ends within its tensors; copy it again")
    return torch.from_numpy(data).view(dtype).reshape(shape)
