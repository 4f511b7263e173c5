"""Choose where to compute and in which precision.

``auto`` takes the first of Metal (Apple), CUDA (NVIDIA, AMD) and the CPU, and float32:
half precision is slower than float32 on most CPUs and is asked for by name elsewhere.
"""

import torch

from cleangpt2.errors import DeviceError, did_you_mean

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
_SHORT = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}


def available() -> list[str]:
    """The devices of this machine, best first; the CPU is always the last.

    >>> available()[-1]
    'cpu'
    """
    metal = ["mps"] if torch.backends.mps.is_available() else []
    # `is_available` first: counting devices on a machine with a broken driver warns.
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [*metal, *(f"cuda:{index}" for index in range(count)), "cpu"]


def choose(device: str | torch.device = "auto") -> torch.device:
    """The device to use, as tensors on it name it: ``cuda`` becomes ``cuda:0``.

    >>> choose("cpu")
    device(type='cpu')

    Raises:
        DeviceError: This machine has no such device.
    """
    here = available()
    wanted = str(device).lower()
    if wanted == "auto":
        wanted = here[0]
    elif wanted == "cuda" and "cuda:0" in here:
        wanted = f"cuda:{torch.cuda.current_device()}"
    wanted = {"mps:0": "mps", "cpu:0": "cpu"}.get(wanted, wanted)
    if wanted not in here:
        raise DeviceError(
            f"no device {str(device)!r} on this machine{_reason(wanted)}; "
            f"it has {', '.join(here)}: choose one of them, or 'auto'"
        )
    return torch.device("mps", 0) if wanted == "mps" else torch.device(wanted)


def choose_dtype(
    dtype: str | torch.dtype = "auto", device: str | torch.device = "cpu"
) -> torch.dtype:
    """The data type to compute in; ``auto`` is float32.

    >>> choose_dtype("bf16")
    torch.bfloat16

    Raises:
        DeviceError: An unknown type, or one that the device does not have.
    """
    name = str(dtype).removeprefix("torch.").lower()
    name = _SHORT.get(name, "float32" if name == "auto" else name)
    if name not in DTYPES:
        raise DeviceError(
            f"no data type {str(dtype)!r}; choose one of auto, {', '.join(DTYPES)}."
            f"{did_you_mean(name, DTYPES)}"
        )
    if name == "float64" and torch.device(device).type == "mps":
        raise DeviceError("Metal has no float64; choose float32, float16 or bfloat16, or the cpu")
    return DTYPES[name]


def _reason(wanted: str) -> str:
    """Why a device that exists elsewhere is missing here."""
    if wanted.startswith("cuda"):
        if not (torch.version.cuda or torch.version.hip):
            return f" (PyTorch {torch.__version__} is built without CUDA)"
        return "" if torch.cuda.is_available() else " (PyTorch finds no GPU or no driver)"
    if wanted.startswith("mps"):
        return " (Metal needs macOS on Apple silicon)"
    return ""
