"""Tensors in files: what is known of them before they are read, and where a folder has them.

A model folder holds one ``model.safetensors``, several that ``model.safetensors.index.json`` lists,
or the older ``pytorch_model.bin`` (or several). Safetensors are looked into without reading them;
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
from cleangpt2.files import read_text
from cleangpt2.hub import Source
from cleangpt2.model.config import GPT2Config

SINGLE = ("model.safetensors", "pytorch_model.bin")
"""The two file names; each may instead be split into shards that ``<name>.index.json`` lists."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}

_LARGEST_HEADER = 100_000_000  # bytes; safetensors reads no larger one either


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """One tensor in a file: what is known of it, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str
    """A string where it is no type that GPT-2 weights have, such as ``I8``."""
    read: Callable[[], Tensor]
    """Read it; the result may be backed by the file, so copy it before the file is closed."""
    transposed: bool = False
    """Stored (in, out), as GPT-2's first code multiplies; our layers are (out, in)."""

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Its shape in the layout of our parameters."""
        return self.shape[::-1] if self.transposed else self.shape

    def weight(self) -> Tensor:
        """Read it in the layout of our parameters."""
        return self.read().t() if self.transposed else self.read()


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A model's files, looked into: what model they describe, and its tensors."""

    config: GPT2Config
    tensors: dict[str, StoredTensor]
    """Under our parameters' names."""
    files: tuple[Path, ...]
    """The files that hold the tensors."""
    kind: str
    """The format in words, such as ``nanoGPT checkpoint``."""
    described_by: str = "config.json"
    """Where the configuration stands."""


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
        weight_map = json.loads(read_text(index))["weight_map"]
        return sorted(set(map(str, weight_map.values())))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
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
            read=partial(_read_safetensor, path, name),
        )
    return tensors


def _read_safetensor(path: Path, name: str) -> Tensor:
    """One tensor, backed by a mapping of the file that goes when the tensor does.

    A mapping that all tensors share would keep every page it has read: a second copy of the model.
    """
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def read_pickle(path: Path) -> Any:
    """What ``torch.save`` wrote, its tensors mapped from the file where that is possible.

    Raises:
        CheckpointError: The file is damaged, or holds more than tensors and plain values.
    """
    try:
        # Files older than PyTorch 1.6 are no zip archives and cannot be mapped.
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # pickle, zipfile and torch each have their own
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged, or it holds Python "
            "objects, which are never run; download it again or use model.safetensors instead"
        ) from error


def _pickled(path: Path) -> dict[str, StoredTensor]:
    tensors = in_memory(read_pickle(path), path)
    if tensors is None:
        raise CheckpointError(
            f"{path} holds more than named tensors: save `model.state_dict()` alone"
        )
    return tensors


def in_memory(content: Any, path: Path) -> dict[str, StoredTensor] | None:
    """Named tensors that a pickle held; ``None`` if that is not what it held.

    Raises:
        CheckpointError: A tensor whose numbers are not all in the file, which could claim to be
            of any size.
    """
    if not isinstance(content, dict):
        return None
    tensors = {}
    for name, tensor in content.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            return None
        # The layout first: a sparse tensor has no storage to ask.
        if tensor.layout != torch.strided or tensor.is_meta or _bytes(tensor) < tensor.nbytes:
            raise CheckpointError(
                f"{path} does not hold all numbers of {name}: save `model.state_dict()` of plain "
                "tensors"
            )
        known = tensor.dtype in _DTYPES.values()
        tensors[name] = StoredTensor(
            shape=tuple(tensor.shape),
            dtype=tensor.dtype if known else str(tensor.dtype),
            read=partial(_same, tensor),
        )
    return tensors


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _damage(path: Path, error: Exception) -> str:
    """What is wrong with a safetensors file that does not open, and what to do."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            return f"{path} is a Git LFS pointer, not the weights: run 'git lfs pull' in its folder"
        header = file.read(min(int.from_bytes(start, "little"), _LARGEST_HEADER))
        expected = _expected_size(start + header)
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
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
