"""From a model in any known format to a model folder that is shown to be the same.

The folder is written aside, read back, and measured before it takes its place: on fixed token
ids its logits must be those of the source's weights, rounded to the type they were stored in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import count
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from cleangpt2.device import choose_dtype
from cleangpt2.errors import CheckpointError, OutputError, TokenizerError
from cleangpt2.files import check_writable, written_aside
from cleangpt2.hub import Source, locate
from cleangpt2.model.convert.formats import find_checkpoint, open_model
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.pretrained import load_model, model_from, save
from cleangpt2.model.weights import Opened
from cleangpt2.tokenizer import Tokenizer

ROWS, LENGTH = 4, 128
"""Token ids to compare on; rows are as short as the context where that is shorter."""

TOLERANCE = 1e-5
"""Of the largest logit: what float32 may differ by where sums are taken in another order."""

_MODEL = ("config.json", "*.safetensors*", "pytorch_model*.bin*", "tokenizer.json")
_BESIDE = (
    "generation_config.json",
    "merges.txt",
    "vocab.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "lineage.json",
)
_STEPS = 4  # what follows the reading: measure, write, measure the rounding, measure again


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What was converted, and how far the result is from its source."""

    source: str
    kind: str
    """The source's format in words."""
    folder: str
    dtype: str
    """Of the weights written."""
    tensors: int
    """Those of the model; a copy of a tied output layer is none."""
    parameters: int
    tokens: int
    """Ids that the logits were compared on."""
    difference: float
    """The largest difference between the logits of the source and of the folder."""
    rounding: float
    """The same between the source and its weights rounded to `dtype`."""
    largest: float
    """The largest magnitude of the source's logits."""

    @property
    def relative(self) -> float:
        """The difference, in units of the largest logit."""
        return self.difference / self.largest if self.largest else self.difference


def convert(
    name: str | Path,
    folder: str | Path,
    *,
    dtype: str = "auto",
    tokenizer: Tokenizer | None = None,
    activation: str | None = None,
    fresh: bool = False,
    progress: Callable[[str, int, int], object] = lambda *_: None,
) -> Conversion:
    """Write the model called `name` as a model folder and compare the two.

    Memory holds two copies of the weights at most: the source's, and what is written or read back.

    Args:
        name: What `load` takes.
        folder: Where to write; files that are no model's stay.
        dtype: Of the stored weights; ``auto`` keeps the widest of the source's.
        tokenizer: Written beside the weights; ``None`` writes none.
        activation: See ``formats.open_model``.
        fresh: Replace the model that `folder` holds.
        progress: Called with what is being done, how far it is, and of how many steps.

    Raises:
        OutputError: `folder` holds a model or cannot be written, or what was written is not the
            source's model; then `folder` stays as it was.
        CleanGPT2Error: The source cannot be read; see `load`.
    """
    folder = Path(folder).expanduser()
    source = locate(name)
    _check_target(folder, source, fresh)
    steps = count(1)

    def step(what: str) -> None:
        progress(what, next(steps), n_tensors + _STEPS)

    with open_model(source, activation=activation) as opened:
        n_tensors = _n_tensors(opened)
        stored_dtype = _stored_dtype(opened, dtype)
        model = _read(opened, source.name, lambda: step("reading"))
    _check_vocabulary(tokenizer, model)
    step("comparing")
    logits = _logits(model)
    with written_aside(folder) as scratch:
        step("writing")
        save(model, tokenizer, scratch, dtype=stored_dtype, made_by="convert", parent=name)
        step("comparing")
        rounded = _logits(_round(model, stored_dtype))
        step("comparing")
        written = _logits(load_model(scratch, device="cpu"))
        _check_equal(rounded, written, source.name)
        names = {path.name for path in scratch.iterdir()}
    if fresh:
        _remove_older(folder, names)
    return Conversion(
        source=source.name,
        kind=opened.kind,
        folder=str(folder),
        dtype=str(stored_dtype).removeprefix("torch."),
        tensors=n_tensors,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens=written.shape[0] * written.shape[1],
        difference=_gap(logits, written),
        rounding=_gap(logits, rounded),
        largest=float(logits.abs().max()),
    )


def _check_target(folder: Path, source: Source, fresh: bool) -> None:
    """Refuse, before long work, a folder that cannot be written or holds what would be lost."""
    check_writable(folder)
    own = source.folder if find_checkpoint(source) is None else None
    if own is not None and own.absolute() == folder.absolute():
        raise OutputError(f"{folder} is the model to convert itself: choose another folder")
    if not fresh and any(path for pattern in _MODEL for path in folder.glob(pattern)):
        raise OutputError(
            f"{folder} holds a model: choose another folder, or replace it with --fresh"
        )


def _check_vocabulary(tokenizer: Tokenizer | None, model: GPT2) -> None:
    if tokenizer is not None and tokenizer.vocab_size > model.config.vocab_size:
        raise TokenizerError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model only "
            f"{model.config.vocab_size:,} embeddings: they do not belong together"
        )


def _read(opened: Opened, owner: str, progress: Callable[[], object]) -> GPT2:
    cpu = torch.device("cpu")
    return model_from(opened, owner, device=cpu, dtype=torch.float32, progress=progress)


def _n_tensors(opened: Opened) -> int:
    """How many of the tensors are read; an output layer that is tied is not."""
    tied = opened.config.tie_word_embeddings and "lm_head.weight" in opened.tensors
    return len(opened.tensors) - tied


def _stored_dtype(opened: Opened, dtype: str) -> torch.dtype:
    """The type to store: what was asked for, or the widest of the source's up to float32."""
    if dtype != "auto":
        return choose_dtype(dtype)
    known = [t.dtype for t in opened.tensors.values() if isinstance(t.dtype, torch.dtype)]
    widest = reduce(torch.promote_types, known, torch.bfloat16 if known else torch.float32)
    return torch.float32 if widest == torch.float64 else widest


@torch.no_grad()
def _logits(model: GPT2) -> Float[Tensor, "B T V"]:
    """What the model says to fixed, random tokens."""
    shape = (ROWS, min(LENGTH, model.config.n_positions))
    seeded = torch.Generator().manual_seed(0)
    return model(torch.randint(model.config.vocab_size, shape, generator=seeded))


@torch.no_grad()
def _round(model: GPT2, dtype: torch.dtype) -> GPT2:
    """Round the weights to what `dtype` can hold, in place."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))
    return model


def _gap(a: Float[Tensor, "B T V"], b: Float[Tensor, "B T V"]) -> float:
    """The largest difference."""
    return float((a - b).abs().max())


def _check_equal(
    expected: Float[Tensor, "B T V"], written: Float[Tensor, "B T V"], owner: str
) -> None:
    largest = float(expected.abs().max())
    if not math.isfinite(largest):
        raise CheckpointError(
            f"{owner}: its weights give logits that are no numbers, so it is damaged or needs "
            "more than float32"
        )
    if _gap(expected, written) > TOLERANCE * largest:
        raise OutputError(
            f"what was written differs from {owner} by {_gap(expected, written):.3g} in logits up "
            f"to {largest:.3g}, more than its data type explains; nothing was kept: check the "
            "memory and the disk of this machine, and report it if it happens again"
        )


def _remove_older(folder: Path, written: set[str]) -> None:
    """Remove what is left of an older model and would be read with the new files."""
    for pattern in (*_MODEL, *_BESIDE):
        for path in folder.glob(pattern):
            if path.name not in written:
                path.unlink()
