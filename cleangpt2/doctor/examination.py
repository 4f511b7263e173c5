"""The whole visit: every part, in the order a person should read it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from cleangpt2.device import choose, choose_dtype
from cleangpt2.doctor import reference
from cleangpt2.doctor.devices import devices
from cleangpt2.doctor.environment import environment
from cleangpt2.doctor.finding import Finding, guarded
from cleangpt2.doctor.folder import folder
from cleangpt2.doctor.memory import memory
from cleangpt2.errors import CleanGPT2Error, DeviceError
from cleangpt2.hub import ALIASES, locate
from cleangpt2.model.config import SIZES
from cleangpt2.model.pretrained import load
from cleangpt2.model.summary import summarise
from cleangpt2.model.weights import weight_files

DEFAULT = "story"


def examine(
    name: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    fresh: bool = False,
) -> Iterator[Finding]:
    """Look at the machine and at one model; yield what is found, as it is found.

    Args:
        name: As for `load`; ``None`` is the bundled model, quickly and without the network.
        device: Where the model is to run.
        dtype: What it is to compute in.
        fresh: Repeat the devices' self-check, whatever is remembered of it.
    """
    yield from environment()
    try:
        chosen = choose(device)
        kind = choose_dtype(dtype, chosen)
    except DeviceError as error:
        yield Finding("devices", device, "failed", str(error), "leave --device and --dtype out")
        chosen, kind = torch.device("cpu"), torch.float32
    shown = str(name or DEFAULT)
    yield from guarded("devices", "devices", partial(devices, chosen, kind, fresh=fresh))
    try:
        locate(shown)
    except CleanGPT2Error as error:
        yield Finding("model", shown, "failed", str(error))
        return
    yield from guarded("memory", "memory", partial(memory, shown, chosen, kind))
    yield from guarded("model", "files", partial(folder, shown, chosen, kind))
    yield from guarded(reference.SECTION, "gpt2", partial(_published, shown, chosen))


def _published(name: str, device: torch.device) -> Iterator[Finding]:
    """The outputs that OpenAI's models are known to give, where this is one of them."""
    source = locate(name)
    size = next((size for size, repo in ALIASES.items() if repo == source.repo), None)
    size = size or _size_by_shape(name)
    rows = reference.table().get(size or "")
    if size is None or not rows:
        yield _not_run("gpt2")
        return
    if source.repo and not weight_files(source, local=True):
        yield _not_run(size)
        return
    model, tokenizer = load(name, device=device, dtype="float32")
    if source.repo is None and not reference.has_its_weights(model, tokenizer, rows):
        detail = f"it has the shape of {size} and other weights, for which nothing is published"
        yield Finding(reference.SECTION, name, "not run", detail)
        return
    yield from reference.compare(model, tokenizer, rows)


def _size_by_shape(name: str) -> str | None:
    """The published size that a folder may hold a copy of."""
    try:
        config = summarise(name).config
    except CleanGPT2Error:  # said before
        return None
    same = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
    for size, published in SIZES.items():
        if all(getattr(config, key) == getattr(published, key) for key in same):
            return size
    return None


def _not_run(size: str) -> Finding:
    """Why OpenAI's numbers were not asked for."""
    how = f"run `cleangpt2 doctor {size}`"
    if weight_files(locate(size), local=True):
        detail = f"they are those of OpenAI's models; {how} to compare"
    else:
        detail = (
            f"the weights of {size} are not on this machine; {how} where they can be downloaded"
        )
    return Finding(reference.SECTION, size, "not run", detail)
