"""Choose where to compute and in which precision.

``auto`` takes the first of Metal (Apple), CUDA (NVIDIA, AMD) and the CPU, and float32:
half precision is slower than float32 on most CPUs and is asked for by name elsewhere. Whether a
device computes rightly is another question: ``model/selfcheck.py`` answers it.
"""

import ctypes
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFacts:
    """What a device is, as far as PyTorch and the system tell."""

    name: str
    """As its maker calls it."""
    driver: str
    """What stands between PyTorch and it: its instruction set, CUDA and driver, or macOS."""
    total_memory: int | None
    """Bytes; ``None`` where the system does not say."""
    free_memory: int | None
    """Bytes a new process could take now; ``None`` where the system does not say."""


def describe(device: str | torch.device = "auto") -> DeviceFacts:
    """Name, driver and memory of a device of this machine.

    >>> describe("cpu").name != ""
    True

    Raises:
        DeviceError: This machine has no such device.
    """
    device = choose(device)
    if device.type == "cuda":
        return _describe_cuda(device)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        free = max(0, total - torch.mps.driver_allocated_memory())
        driver = f"macOS {platform.mac_ver()[0]}"
        return DeviceFacts(name=_processor(), driver=driver, total_memory=total, free_memory=free)
    total, free = main_memory()
    return DeviceFacts(
        name=_processor(),
        driver=torch.backends.cpu.get_cpu_capability(),
        total_memory=total,
        free_memory=free,
    )


def _describe_cuda(device: torch.device) -> DeviceFacts:
    free, total = torch.cuda.mem_get_info(device)
    major, minor = torch.cuda.get_device_capability(device)
    platform_name = (
        f"HIP {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    )
    installed = getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")()
    return DeviceFacts(
        name=torch.cuda.get_device_name(device),
        driver=f"{platform_name}, driver {installed}, capability {major}.{minor}",
        total_memory=total,
        free_memory=free,
    )


def _processor() -> str:
    """The processor's name; Linux keeps it in a file that `platform` does not read."""
    try:
        found = re.search(r"^model name\s*: *(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine() or "unknown"


# ---- main memory -------------------------------------------------------------------------------


class Memory(NamedTuple):
    """Bytes; ``None`` where the system does not say."""

    total: int | None
    free: int | None


def main_memory() -> Memory:
    """The memory of this machine, or of the container it is."""
    if sys.platform == "win32":
        return _windows()
    try:
        sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE))
        here = Memory(int(sizes["MemTotal"]) * 1024, int(sizes["MemAvailable"]) * 1024)
        return _within_container(here)
    except (OSError, KeyError):  # no Linux
        pass
    try:
        return Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None)
    except (AttributeError, ValueError, OSError):
        return Memory(None, None)


def _within_container(here: Memory, group: str = "/sys/fs/cgroup") -> Memory:
    """What of the machine's memory a container (Linux, cgroup v2) may use."""
    try:
        limit = int(_read(f"{group}/memory.max"))
        used = int(_read(f"{group}/memory.current"))
        # Files that were read count as used, and give way to whoever needs the room.
        files = re.search(r"^inactive_file (\d+)$", _read(f"{group}/memory.stat"), re.MULTILINE)
    except (OSError, ValueError):  # no container, or one without limit: "max"
        return here
    left = max(0, limit - used + (int(files[1]) if files else 0))
    total = limit if here.total is None else min(here.total, limit)
    return Memory(total, left if here.free is None else min(here.free, left))


def _windows() -> Memory:
    class Status(ctypes.Structure):
        """``MEMORYSTATUSEX`` of the Windows API."""

        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "a", "b", "c", "d", "e")),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - only Windows has it
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return Memory(None, None)
    return Memory(status.total, status.free)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _reason(wanted: str) -> str:
    """Why a device that exists elsewhere is missing here."""
    if wanted.startswith("cuda"):
        if not (torch.version.cuda or torch.version.hip):
            return f" (PyTorch {torch.__version__} is built without CUDA)"
        return "" if torch.cuda.is_available() else " (PyTorch finds no GPU or no driver)"
    if wanted.startswith("mps"):
        return " (Metal needs macOS on Apple silicon)"
    return ""
