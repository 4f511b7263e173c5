"""A device and data type are checked with known numbers before a model uses them.

Attention kernels have been silently wrong: Metal leaked future tokens in half precision
(pytorch#195910), read past the keys while decoding (#174861) and mishandled queries that are not
contiguous (#163597). So the first use runs the cases of ``golden.py``, takes the first of
``attention.PATHS`` that gets all of them right, and refuses a device where none does. The
verdict is remembered, in the process and in the user's cache folder, for as long as the machine,
PyTorch and our own code stay the same.
"""

import hashlib
import json
import os
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch

from cleangpt2.device import describe
from cleangpt2.errors import DeviceError
from cleangpt2.model import golden
from cleangpt2.model.attention import PATHS, trusted_paths
from cleangpt2.model.config import GPT2Config

TOLERANCES = {
    torch.float64: 1e-6,  # the stored values are float32
    torch.float32: 4e-5,  # sums in another order: at most 2e-6 on CPUs
    torch.float16: 1e-2,  # 3e-3 on CPUs, after the two layers of the small model
    torch.bfloat16: 8e-2,  # three bits less than float16; 2e-2 on CPUs
}
"""Largest difference allowed, in units of a case's largest magnitude (1 at least). Inputs are
exact in every data type, so only the arithmetic differs. A mask that is off by one token is wrong
by more than this at many of 1024 positions."""

# A user may let float32 products be computed in fewer bits: those of float16, or of bfloat16.
_SHORTENED = {"highest": torch.float32, "high": torch.float16, "medium": torch.bfloat16}

_seen: dict[tuple[torch.device, torch.dtype, str], "Verdict"] = {}  # what this process knows


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a check found."""

    device: torch.device
    dtype: torch.dtype
    path: str
    """How attention is to be computed there: the first of ``attention.PATHS`` that is right."""
    wrong: tuple[str, ...] = ()
    """What the paths before it got wrong, one sentence each, which begins with the path."""
    seconds: float
    """What the check took when it was made."""
    remembered: bool = False
    """Whether it was made before, in this process or another."""

    @property
    def warning(self) -> str | None:
        """One line for the user, where something is wrong."""
        if not self.wrong:
            return None
        return (
            f"{_where(self.device, self.dtype)} computes attention wrongly, so it takes another, "
            f"slower path there, {self.path!r}, which is right: {'; '.join(self.wrong)}"
        )


def attention_path(config: GPT2Config, device: torch.device, *dtypes: torch.dtype) -> str:
    """The attention path that a model is to use on a device; warns if it is not the usual one.

    Args:
        config: The model's; it may ask for attention in float32 whatever the weights are.
        device: Where the model will be.
        dtypes: What it computes in: its weights' data type, and autocast's where it trains so.

    Raises:
        DeviceError: No path is right.
    """
    upcast = (torch.float32,) if config.reorder_and_upcast_attn else ()
    verdicts = [check_device(device, dtype) for dtype in dict.fromkeys((*dtypes, *upcast))]
    for verdict in verdicts:
        if verdict.warning:
            warnings.warn(verdict.warning, stacklevel=2)
    return max((verdict.path for verdict in verdicts), key=PATHS.index)


def check_device(device: torch.device, dtype: torch.dtype, *, fresh: bool = False) -> Verdict:
    """Run the known cases there, or recall what they gave.

    Args:
        device: One of this machine, as `device.choose` names it.
        dtype: What the model computes in.
        fresh: Check again even if the verdict is known.

    Raises:
        DeviceError: No path is right; it names what each one got wrong.
    """
    seen = (device, dtype, _precision())
    if not fresh and seen in _seen:
        return replace(_seen[seen], remembered=True)
    file = _memory(device, dtype)
    verdict = None if fresh else _recall(file, device, dtype)
    if verdict is None:
        verdict = _check(device, dtype)
        _remember(file, verdict)
    _seen[seen] = verdict
    return verdict


def _check(device: torch.device, dtype: torch.dtype) -> Verdict:
    """Try the paths in their order."""
    start, wrong = time.perf_counter(), []
    for path in trusted_paths(device, dtype):
        mistake = first_mistake(device, dtype, path)
        if mistake is None:
            seconds = time.perf_counter() - start
            return Verdict(
                device=device, dtype=dtype, path=path, wrong=tuple(wrong), seconds=seconds
            )
        wrong.append(f"{path!r}: {mistake}")
    raise DeviceError(
        f"{_where(device, dtype)} computes wrongly on every attention path: {'; '.join(wrong)}; "
        "choose device='cpu' and dtype='float32', or install another version of PyTorch"
    )


def first_mistake(device: torch.device, dtype: torch.dtype, path: str) -> str | None:
    """The first case that a path gets wrong, in words; ``None`` if it gets all of them right."""
    tolerance = TOLERANCES[_SHORTENED[_precision()] if dtype == torch.float32 else dtype]
    stored = golden.load()
    # Whatever the caller is in the middle of, the cases run as they did when they were stored.
    plain = torch.autocast(device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), plain:
        try:
            for result in golden.results(device, dtype, path):
                expected = result.expected(stored)
                errors = (result.values - expected).abs() / expected.abs().max().clamp(min=1)
                if not errors.max() <= tolerance:  # so written, because NaN is wrong, too
                    row, t = divmod(int(errors.amax(dim=-1).argmax()), errors.size(1))
                    place = f"position {result.starts[row] + t}"
                    return f"{result.case}, off by {errors.max():.2g} at {place}"
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{device} has no memory left to be checked: free some, or choose device='cpu'"
            ) from error
        except RuntimeError as error:  # a kernel that is missing, or that stops by itself
            return f"fails with {' '.join(str(error).split())[:120]!r}"
    return None


def _where(device: torch.device, dtype: torch.dtype) -> str:
    return f"{device} in {str(dtype).removeprefix('torch.')} (PyTorch {torch.__version__})"


def _precision() -> str:
    """How exact PyTorch's float32 products have to be."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set through PyTorch's newer switches, which this cannot read
        return "medium"


def cache_folder() -> Path:
    """Where verdicts are kept: ``$CLEANGPT2_CACHE``, or ``cleangpt2`` in the user's cache."""
    if chosen := os.environ.get("CLEANGPT2_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cleangpt2"


def _memory(device: torch.device, dtype: torch.dtype) -> Path | None:
    """The file that remembers this check; its name is a hash of all that the verdict rests on."""
    facts = describe(device)
    digest = hashlib.sha256()
    for fact in (torch.__version__, device, dtype, _precision(), facts.name, facts.driver):
        digest.update(f"{fact}\n".encode())
    for file in (golden.FILE, *sorted(golden.FILE.parent.glob("*.py"))):
        digest.update(file.read_bytes())
    try:
        return cache_folder() / f"selfcheck-{digest.hexdigest()[:32]}.json"
    except RuntimeError:  # a user without a home folder
        return None


def _recall(file: Path | None, device: torch.device, dtype: torch.dtype) -> Verdict | None:
    """The verdict in a file, unless there is none or it is damaged."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8")) if file else {}
        path, wrong, seconds = stored["path"], stored["wrong"], float(stored["seconds"])
        if path not in trusted_paths(device, dtype) or not all(isinstance(w, str) for w in wrong):
            return None
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return Verdict(
        device=device, dtype=dtype, path=path, wrong=tuple(wrong), seconds=seconds, remembered=True
    )


def _remember(file: Path | None, verdict: Verdict) -> None:
    """Write the verdict, whole or not at all; a folder that cannot be written costs a second."""
    if file is None:
        return
    content = {"path": verdict.path, "wrong": verdict.wrong, "seconds": verdict.seconds}
    aside = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as scratch:
            aside = Path(scratch.name)
            json.dump(content, scratch)
        aside.replace(file)
    except OSError:
        if aside is not None:
            aside.unlink(missing_ok=True)
