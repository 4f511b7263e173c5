"""Checkpoints of TensorFlow, as OpenAI published GPT-2 and as its training code writes them.

    checkpoint                           the name of the newest checkpoint: model.ckpt
    model.ckpt.index                     which tensor lies where
    model.ckpt.data-00000-of-00001       the numbers
    hparams.json                         n_vocab, n_ctx, n_embd, n_head, n_layer
    encoder.json, vocab.bpe              the vocabulary; ``tokenizer/files.py`` reads it

``model.ckpt.meta`` holds the graph and is not needed, and TensorFlow is not either.
"""

import json
import math
import re
from functools import partial
from pathlib import Path, PureWindowsPath

import numpy as np
import torch
from torch import Tensor

from cleangpt2.errors import CheckpointError, ConfigError
from cleangpt2.files import read_text
from cleangpt2.model.config import GPT2Config, end_of_text
from cleangpt2.model.convert.bundle import LARGEST, Entry, read_index
from cleangpt2.model.convert.crc32c import crc32c, masked
from cleangpt2.model.weights import Opened, StoredTensor

HPARAMS = "hparams.json"
STATE = "checkpoint"

_KEYS = {
    "n_vocab": "vocab_size",
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
_DTYPES = {1: torch.float32, 2: torch.float64, 14: torch.bfloat16, 19: torch.float16}
_BLOCK = re.compile(
    r"model/h(\d{1,9})/(ln_1|ln_2|attn/c_attn|attn/c_proj|mlp/c_fc|mlp/c_proj)/([gbw])"
)
_TOP = {
    "model/wte": "wte.weight",
    "model/wpe": "wpe.weight",
    "model/ln_f/g": "ln_f.weight",
    "model/ln_f/b": "ln_f.bias",
}


def find_index(folder: Path) -> Path:
    """The index of a folder's newest checkpoint.

    Raises:
        CheckpointError: There is none, or several and nothing says which.
    """
    if (state := folder / STATE).is_file():
        named = re.search(r'^model_checkpoint_path: *"(.*)"', _text(state), flags=re.MULTILINE)
        # It may be a path on the machine that wrote it; what counts lies beside this file.
        prefix = PureWindowsPath(named[1]).name if named else ""  # cuts at / and \ and C:
        index = folder / f"{prefix}.index"
        if not (prefix and index.is_file()):
            raise CheckpointError(
                f"{state} names the checkpoint {prefix!r}, and there is no {index.name} beside it: "
                "copy the folder again"
            )
        return index
    found = sorted(folder.glob("*.index"))
    if len(found) != 1:
        raise CheckpointError(
            f"{folder} holds {len(found)} checkpoints of TensorFlow and no file {STATE!r} that "
            "names one: give the path of an .index file"
        )
    return found[0]


def open_checkpoint(index: Path) -> Opened:
    """Look into the checkpoint that this index belongs to.

    Raises:
        CheckpointError: A file that is missing, damaged, or of another program.
        ConfigError: ``hparams.json`` describes no GPT-2.
    """
    config = _read_hparams(index.with_name(HPARAMS))
    try:
        if (size := index.stat().st_size) > LARGEST:
            raise ValueError(f"it has {size:,} bytes, the index of a GPT-2 at most {LARGEST:,}")
        shards, entries = read_index(index.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(index, str(error)) from None
    weights = {
        name: entry
        for name, entry in entries.items()
        if name.startswith("model/") and not _is_slot(name, entries)
    }
    files = {
        shard: _data_file(index, shard, shards)
        for shard in sorted({entry.shard for entry in weights.values()})
    }
    return Opened(
        config=config,
        tensors={
            _our_name(name): _stored(name, entry, files[entry.shard])
            for name, entry in weights.items()
        },
        files=tuple(files.values()),
        kind="TensorFlow checkpoint",
        described_by=HPARAMS,
    )


def files_of(index: Path) -> list[Path]:
    """The files of this checkpoint; the folder may hold earlier ones, too."""
    name = re.compile(re.escape(index.stem) + r"\.(index|meta|data-\d+-of-\d+)")
    return sorted(path for path in index.parent.iterdir() if name.fullmatch(path.name))


def _read_hparams(path: Path) -> GPT2Config:
    if not path.is_file():
        raise CheckpointError(
            f"there is no {path}, which gives the model's size: copy the one of the model that was "
            "trained, with n_vocab, n_ctx, n_embd, n_head and n_layer"
        )
    try:
        values = json.loads(_text(path))
        numbers = {ours: values[theirs] for theirs, ours in _KEYS.items()}
        if wrong := [value for value in numbers.values() if type(value) is not int]:
            raise ValueError(f"{wrong[0]!r:.40} is no whole number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    try:
        end = end_of_text(numbers["vocab_size"])
        return GPT2Config(**numbers, bos_token_id=end, eos_token_id=end)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _data_file(index: Path, shard: int, shards: int) -> Path:
    path = index.with_name(f"{index.stem}.data-{shard:05}-of-{shards:05}")
    if not path.is_file():
        raise CheckpointError(
            f"there is no {path}, which {index.name} names: copy the folder again"
        )
    return path


def _our_name(name: str) -> str:
    """Our name of one of OpenAI's variables; any other stays as it is, for `match` to refuse.

    >>> _our_name("model/h3/attn/c_attn/w"), _our_name("model/ln_f/g")
    ('h.3.attn.c_attn.weight', 'ln_f.weight')
    """
    if found := _BLOCK.fullmatch(name):
        layer, module, kind = found.groups()
        return f"h.{int(layer)}.{module.replace('/', '.')}.{'bias' if kind == 'b' else 'weight'}"
    return _TOP.get(name, name)


def _is_slot(name: str, entries: dict[str, Entry]) -> bool:
    """Whether this is an optimiser's, as ``model/wte/Adam`` beside ``model/wte``."""
    return name.rpartition("/")[0] in entries


def _stored(name: str, entry: Entry, path: Path) -> StoredTensor:
    is_linear = name.endswith("/w")
    # OpenAI's linear layers are convolutions of width 1, which is a leading dimension.
    shape = entry.shape[1:] if is_linear and entry.shape[:1] == (1,) else entry.shape
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None or entry.sliced:
        what = "slices" if entry.sliced else f"TensorFlow's type {entry.dtype}"
        return StoredTensor(
            shape=shape, dtype=what, read=lambda: torch.empty(0), transposed=is_linear
        )
    # At most three dimensions, so that nobody has to multiply, or read of, a million of them.
    if len(entry.shape) > 3 or math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise _damaged(
            path, f"by its index {name} has {entry.size:,} bytes, which its shape denies"
        )
    if (end := entry.offset + entry.size) > (length := path.stat().st_size):
        raise _damaged(path, f"it has {length:,} bytes, and {name} ends at {end:,}")
    read = partial(_read, name, entry, path, dtype, shape)
    return StoredTensor(shape=shape, dtype=dtype, read=read, transposed=is_linear)


def _read(
    name: str, entry: Entry, path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> Tensor:
    """Read one tensor and compare its checksum."""
    data = np.fromfile(path, dtype=np.uint8, count=entry.size, offset=entry.offset)
    if masked(crc32c(data)) != entry.crc:
        raise _damaged(path, f"the checksum of {name} is wrong")
    return torch.from_numpy(data).view(dtype).reshape(shape)


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, f"it cannot be read as text ({error})") from None


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {what}; copy or download it again")
