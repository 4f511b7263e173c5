"""The tensors of a model folder, whatever files they are in.

A folder holds one ``model.safetensors``, several listed in ``model.safetensors.index.json``, or
the older ``pytorch_model.bin`` (or several). Safetensors are looked into without reading them;
``.bin`` files are pickles and are opened with ``weights_only``, which runs no code from them.
"""

import json
import zipfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cleangpt2.errors import CheckpointError
from cleangpt2.hub import Source

SINGLE = ("model.safetensors", "pytorch_model.bin")
"""The two file names; each may instead be split into shards that ``<name>.index.json`` lists."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """One tensor in a file: what is known of it, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str
    """A string where it is no type that GPT-2 weights have, such as ``I8``."""
    read: Callable[[], Tensor]
    """Read it; the result may be backed by the file, so copy it before the file is closed."""


def weight_files(source: Source, *, local: bool = False) -> list[Path]:
    """The files that hold a model's weights; empty if there are none.

    Args:
        source: Where the model is.
        local: Look only on this machine, as ``info`` does.

    Raises:
        CheckpointError: An index that cannot be read, or that lists a file the folder lacks.
        OfflineError: A shard has to be downloaded and the hub cannot be reached.
    """
    find = source.local if local else partial(source.file, optional=True)
    for name in SINGLE:
        if path := find(name):
            return [path]
        if index := find(f"{name}.index.json"):
            shards = _shards(index)
            paths = [find(shard) for shard in shards]
            absent = [shard for shard, path in zip(shards, paths, strict=True) if path is None]
            if absent and source.folder:
                raise CheckpointError(
                    f"{index} lists {len(shards)} files and {len(absent)} of them are missing "
                    f"({absent[0]}): copy or download the folder again"
                )
            if absent and not local:
                source.file(absent[0])  # says why the hub did not give it
            return [] if absent else [path for path in paths if path]
    return []


@contextmanager
def open_weights(files: list[Path]) -> Generator[dict[str, StoredTensor], None, None]:
    """The tensors of these files by name, readable until the block ends.

    Raises:
        CheckpointError: A file is truncated, corrupt, or holds more than plain tensors.
    """
    with ExitStack() as stack:
        tensors: dict[str, StoredTensor] = {}
        for path in files:
            if path.suffix == ".safetensors":
                tensors |= _safetensors(path, stack)
            else:
                tensors |= _pickled(path)
        yield tensors


def _shards(index: Path) -> list[str]:
    """The file names that an index lists."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted(set(map(str, weight_map.values())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is no index of weights ({type(error).__name__}: {error}): "
            "copy or download it again"
        ) from error


def _safetensors(path: Path, stack: ExitStack) -> dict[str, StoredTensor]:
    try:
        file = stack.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damage(path, error)) from error
    tensors = {}
    for name in file.keys():  # noqa: SIM118 - not a dict
        view = file.get_slice(name)
        kind = view.get_dtype()
        tensors[name] = StoredTensor(
            shape=tuple(view.get_shape()),
            dtype=_DTYPES.get(kind, kind),
            read=partial(file.get_tensor, name),
        )
    return tensors


def _pickled(path: Path) -> dict[str, StoredTensor]:
    try:
        # Files older than PyTorch 1.6 are no zip archives and cannot be mapped.
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # pickle, zipfile and torch each have their own
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged, or it holds Python "
            "objects, which are never run; download it again or use model.safetensors instead"
        ) from error
    plain = isinstance(content, dict) and all(isinstance(t, Tensor) for t in content.values())
    if not plain:
        raise CheckpointError(
            f"{path} holds more than named tensors: save `model.state_dict()` alone"
        )
    return {name: _stored(tensor) for name, tensor in content.items()}


def _stored(tensor: Tensor) -> StoredTensor:
    known = tensor.dtype in _DTYPES.values()
    return StoredTensor(
        shape=tuple(tensor.shape),
        dtype=tensor.dtype if known else str(tensor.dtype),
        read=lambda: tensor,
    )


def _damage(path: Path, error: Exception) -> str:
    """What is wrong with a safetensors file that does not open, and what to do."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            return f"{path} is a Git LFS pointer, not the weights: run 'git lfs pull' in its folder"
        expected = _expected_size(start + file.read(min(int.from_bytes(start, "little"), size)))
    if expected is None:
        what = f"it has {size:,} bytes and no readable header ({error})"
    elif expected != size:
        what = f"it has {size:,} bytes, its header asks for {expected:,}"
    else:
        what = str(error)
    return f"{path} is damaged: {what}; delete it and copy or download it again"


def _expected_size(start: bytes) -> int | None:
    """Bytes of the whole file, from its start: 8 of length, a JSON header, then the tensors."""
    try:
        header: dict[str, Any] = json.loads(start[8:])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
        return len(start) + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
