"""The devices of this machine, which one ``auto`` takes, and whether it computes rightly."""

from collections.abc import Iterator
from functools import partial

import torch

from cleangpt2.device import available, describe
from cleangpt2.doctor.finding import Finding, guarded
from cleangpt2.errors import DeviceError
from cleangpt2.model.selfcheck import check_device

SECTION = "devices"

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def devices(chosen: torch.device, dtype: torch.dtype, *, fresh: bool = False) -> Iterator[Finding]:
    """What there is, and the self-check of the chosen device.

    Args:
        chosen: Where the model is to run.
        dtype: What it is to compute in; the check of it must pass.
        fresh: Check again what was checked before.
    """
    for name in available():
        yield from guarded(SECTION, name, partial(_device, name))
    yield Finding(SECTION, "auto", "ok", f"takes {available()[0]}{_why()}")
    for kind in dict.fromkeys((dtype, *DTYPES)):
        check = partial(_self_check, chosen, kind, is_chosen=kind == dtype, fresh=fresh)
        yield from guarded(SECTION, _subject(chosen, kind), check)


def _device(name: str) -> Iterator[Finding]:
    facts = describe(name)
    yield Finding(SECTION, name, "ok", f"{facts.name} ({facts.driver})")


def _why() -> str:
    """Why ``auto`` took the first device."""
    best = available()[0]
    if best != "cpu":
        return ", the first of Metal, CUDA and the CPU that is here"
    build = torch.version.cuda or torch.version.hip
    kind = "finds no GPU or no driver" if build else "is built without CUDA"
    return f": PyTorch {torch.__version__} {kind}, and Metal needs macOS on Apple silicon"


def _self_check(
    device: torch.device, dtype: torch.dtype, *, is_chosen: bool, fresh: bool
) -> Iterator[Finding]:
    """Attention forward and backward, with and without cache, against stored numbers."""
    subject = _subject(device, dtype)
    try:
        verdict = check_device(device, dtype, fresh=fresh)
    except DeviceError as error:
        advice = "use --device cpu, or another --dtype"
        yield Finding(SECTION, subject, "failed" if is_chosen else "warning", str(error), advice)
        return
    when = "remembered; --fresh repeats it" if verdict.remembered else "just now"
    detail = f"computes rightly, attention path {verdict.path!r} ({verdict.seconds:.1f} s, {when})"
    if verdict.wrong:
        what = f"{detail}; refused: {'; '.join(verdict.wrong)}"
        advice = "nothing to do: the wrong path is not taken, at some cost in speed"
        yield Finding(SECTION, subject, "warning", what, advice)
    else:
        yield Finding(SECTION, subject, "ok", detail)


def _subject(device: torch.device, dtype: torch.dtype) -> str:
    return f"{device} in {str(dtype).removeprefix('torch.')}"
