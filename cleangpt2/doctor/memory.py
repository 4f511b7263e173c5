"""How much memory there is, and whether a model fits into it."""

from collections.abc import Iterator

import torch

from cleangpt2.device import Memory, describe, main_memory
from cleangpt2.doctor.finding import Finding, Verdict
from cleangpt2.errors import CleanGPT2Error
from cleangpt2.model.summary import show_bytes, summarise

SECTION = "memory"

_DTYPES = {"float32": "float32", "16 bits": "bfloat16"}  # as shown, and as `Summary` calls it


def memory(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[Finding]:
    """What there is, and what the model `name` needs on `device`."""
    here = main_memory()
    yield Finding(SECTION, "main memory", "ok", _shown(here))
    if device.type != "cpu":
        facts = describe(device)
        here = Memory(facts.total_memory, facts.free_memory)
        yield Finding(SECTION, str(device), "ok", _shown(here))
    try:
        needs = summarise(name).memory()
    except CleanGPT2Error as error:  # the model's own section says so, too
        yield Finding(SECTION, name, "not run", f"what it needs is unknown: {error}")
        return
    chosen = "float32" if dtype.itemsize >= 4 else "16 bits"
    for shown, key in _DTYPES.items():
        weights, cache = needs["weights"][key], needs["cache, full context"][key]
        yield fit(f"{name}, {shown}", weights, cache, here, is_chosen=shown == chosen)


def fit(subject: str, weights: int, cache: int, here: Memory, *, is_chosen: bool) -> Finding:
    """Whether weights and the cache of a full context fit into what is free, or into all."""
    room = here.total if here.free is None else here.free
    detail = f"{show_bytes(weights)} of weights, {show_bytes(cache)} for a full context"
    if room is None:
        return Finding(SECTION, subject, "not run", f"{detail}; the system tells no memory")
    if weights + cache <= room:
        return Finding(SECTION, subject, "ok", f"{detail}: fits")
    verdict: Verdict = "failed" if is_chosen else "warning"
    advice = "close other programs, choose a smaller model, or try --dtype bfloat16"
    return Finding(
        SECTION, subject, verdict, f"{detail}: more than the {show_bytes(room)} there are", advice
    )


def _shown(here: Memory) -> str:
    parts = [
        f"{show_bytes(number)} {what}"
        for number, what in ((here.total, "in all"), (here.free, "free"))
        if number is not None
    ]
    return ", ".join(parts) or "the system tells nothing of it"
