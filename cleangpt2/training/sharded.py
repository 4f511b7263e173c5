"""Tensors that are spread over processes, as torch.distributed.checkpoint writes and reads them.

The state of a run gets a name in the place of each of them. Under that name they lie in files of
their own: each process writes what it has, and any number of them, also one, reads what it needs.
Whether the files are intact is for ``checkpoint.py`` to check.
"""

import pickle
import warnings
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from cleangpt2.training.runtime import Runtime

METADATA = ".metadata"
NAME = "sharded"  # what a state holds for a tensor is a tuple of this word and its name


def is_sharded(state: dict[str, Any]) -> bool:
    """Whether tensors of the state are spread over processes."""
    return any(map(_is_shard, state.get("model", {}).values()))


def write(folder: Path, state: dict[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Write the shards into an empty folder that all processes see; all of them take part.

    Returns:
        The rest of the state, with a name in the place of each sharded tensor.

    Raises:
        OSError: A file cannot be written, by whichever process.
    """
    import torch.distributed.checkpoint as dcp

    shards: dict[str, Tensor] = {}
    rest = _taken_out(state, "", shards)
    writer = dcp.FileSystemWriter(folder)
    try:
        dcp.save(shards, storage_writer=writer, process_group=runtime.group)
    except dcp.CheckpointException as error:  # a BaseException that holds those of all processes
        rank, (cause, _) = next(iter(error.failures.items()))
        reason = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
        raise OSError(0, f"{reason} (process {rank})") from error
    return rest


def read(folder: Path, rest: dict[str, Any], mesh: Any = None) -> dict[str, Any]:
    """The state that `write` was given, whatever the processes that wrote it; each reads alone.

    Args:
        rest: What `write` returned.
        mesh: A ``DeviceMesh`` over whose processes to spread the tensors; None for whole ones.
    """
    import torch.distributed.checkpoint as dcp

    reader = _reader(folder)
    found = reader.read_metadata().state_dict_metadata
    tensors = {
        name: _room(entry.size, entry.properties.dtype, mesh) for name, entry in found.items()
    }
    with warnings.catch_warnings():  # it would warn that it reads for one process
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    return _put_back(rest, tensors)


def spread(state: dict[str, Any], mesh: Any) -> dict[str, Any]:
    """The state of a run that was not sharded, for one that is."""
    from torch.distributed.tensor import Shard, distribute_tensor

    def part(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() and not _is_shard(value):
            return distribute_tensor(value, mesh, [Shard(0)], src_data_rank=None)
        return _rebuilt(value, part)

    return state | {name: part(state[name]) for name in ("model", "optimizers")}


def _taken_out(value: Any, name: str, shards: dict[str, Tensor]) -> Any:
    """The value with a name for each shard in it, which comes into `shards`."""
    if _is_shard(value):
        shards[name] = value
        return (NAME, name)
    if isinstance(value, dict):
        return {key: _taken_out(part, f"{name}/{key}", shards) for key, part in value.items()}
    if isinstance(value, list):
        return [_taken_out(part, f"{name}/{n}", shards) for n, part in enumerate(value)]
    return value


def _put_back(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, tuple) and value[:1] == (NAME,):
        return tensors[value[1]]
    return _rebuilt(value, lambda part: _put_back(part, tensors))


def _rebuilt(value: Any, change: Any) -> Any:
    """Dictionaries and lists with what `change` makes of their values."""
    if isinstance(value, dict):
        return {key: change(part) for key, part in value.items()}
    return [change(part) for part in value] if isinstance(value, list) else value


def _is_shard(value: Any) -> bool:
    return isinstance(value, Tensor) and hasattr(value, "device_mesh")


def _room(size: torch.Size, dtype: torch.dtype, mesh: Any) -> Tensor:
    if mesh is None:
        return torch.empty(size, dtype=dtype)
    from torch.distributed.tensor import Shard, empty

    return empty(size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])


def _reader(folder: Path) -> Any:
    """A reader of the folder that builds no objects but those a list of tensors is made of.

    The list is a pickle, which could otherwise run any code when it is read; the tensors' files
    are read as weights only. A checksum tells damage, not who wrote the file.
    """
    from torch.distributed.checkpoint import FileSystemReader

    class Reader(FileSystemReader):
        def read_metadata(self, *_args: Any, **_kwargs: Any) -> Any:
            with open(folder / METADATA, "rb") as file:
                metadata = _TensorList(file).load()
            for info in metadata.storage_data.values():
                if PurePath(info.relative_path).name != info.relative_path:
                    raise pickle.UnpicklingError(f"{info.relative_path!r} is not in the folder")
            return metadata

    return Reader(folder)


_PARTS = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata", "MetadataIndex", "TensorStorageMetadata", "TensorProperties",
        "ChunkStorageMetadata", "StorageMeta", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "float64", "float32", "float16", "bfloat16"},
}  # fmt: skip


class _TensorList(pickle.Unpickler):
    """Reads torch.distributed.checkpoint's list of tensors, and no other pickle."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "pathlib":  # where it was written, perhaps on another system
            return PurePath
        if name not in _PARTS.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a list of tensors")
        return super().find_class(module, name)
