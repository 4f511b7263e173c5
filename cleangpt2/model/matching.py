"""Whether stored tensors are those of a configuration, and a model to put them in."""

import re
from collections.abc import Callable

import torch
from torch.overrides import TorchFunctionMode

from cleangpt2.errors import CheckpointError
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.weights import Opened, StoredTensor

_LAYER = re.compile(r"h\.(\d{1,9})\.")


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


def match(opened: Opened, owner: str) -> dict[str, StoredTensor]:
    """The stored tensors, one for each parameter, if they are what the configuration asks for.

    Args:
        opened: A model's files.
        owner: The model's name, for messages.

    Raises:
        CheckpointError: One line that counts what is missing, unexpected or of another shape.
    """
    config, asker = opened.config, opened.described_by
    given = dict(opened.tensors)
    # Those there are, not the last one's number, which a file of one tensor could set at a million.
    layers = len({int(found[1]) for found in map(_LAYER.match, given) if found})
    if layers != config.n_layer:  # asked first, for a million layers would take long to lay out
        raise CheckpointError(
            f"{owner}: {asker} asks for {config.n_layer} layers, the weights have {layers}; "
            f"use the {asker} that belongs to them"
        )
    if config.tie_word_embeddings and "lm_head.weight" in given:
        _check_tied(given.pop("lm_head.weight"), given.get("wte.weight"), f"{owner}: {asker}")
    expected = {
        name: _as_stored(tuple(parameter.shape), given.get(name))
        for name, parameter in outline(config).named_parameters()
    }
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
            f"{owner}: of {len(expected)} tensors that {asker} asks for: "
            f"{'; '.join(problems)}; use the {asker} that belongs to these weights"
        )
    for name in expected:
        if isinstance(given[name].dtype, str):
            raise CheckpointError(
                f"{owner}: {name} is stored as {given[name].dtype}; "
                "only unquantised float weights can be read"
            )
    return given


def _as_stored(shape: tuple[int, ...], stored: StoredTensor | None) -> tuple[int, ...]:
    """The shape that a parameter of `shape` has in the file."""
    return shape[::-1] if stored is not None and stored.transposed else shape


def _check_tied(head: StoredTensor, embedding: StoredTensor | None, where: str) -> None:
    """An output layer stored beside the token embedding it is tied to must be the same."""
    if embedding is not None and not torch.equal(head.read(), embedding.read()):
        raise CheckpointError(
            f"{where} ties the two, but lm_head.weight differs from wte.weight; "
            'set "tie_word_embeddings": false in a config.json to load both'
        )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"
