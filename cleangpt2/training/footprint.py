"""The most memory that this process has held, and how much there is for it.

A process can be asked for its peak but not, on most systems, to forget it: whoever wants to know
what a piece of work takes runs it in a fresh process.
"""

import ctypes
import re
import sys
from pathlib import Path

import torch

from cleangpt2.device import describe


def peak_memory(device: torch.device) -> int:
    """Bytes at the busiest moment so far: of the whole process, or of its tensors on a card.

    On CUDA it is what tensors took; the driver's own share, a few hundred megabytes, is missing
    from both this and `room`.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":  # Metal keeps no peak; its allocator gives little back
        return torch.mps.driver_allocated_memory()
    if sys.platform == "win32":
        return _windows()
    try:
        # Not `getrusage`: on Linux a process begins with the peak of the one that started it.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
            return int(found[1]) * 1024
    except OSError:  # no Linux
        pass
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def room(device: torch.device) -> int | None:
    """Bytes that a process like this one may take in all; None where the system does not say.

    Ask before any large tensor is made: what this process holds by then counts as free.
    """
    facts = describe(device)
    free = facts.total_memory if facts.free_memory is None else facts.free_memory
    if free is None or device.type != "cpu":
        return free
    return min(free + peak_memory(device), facts.total_memory or sys.maxsize)


def _windows() -> int:
    class Counters(ctypes.Structure):
        """``PROCESS_MEMORY_COUNTERS`` of the Windows API."""

        _fields_ = (
            ("size", ctypes.c_ulong),
            ("page_faults", ctypes.c_ulong),
            ("peak_working_set", ctypes.c_size_t),
            *((name, ctypes.c_size_t) for name in "abcdefg"),
        )

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - only Windows has it
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.GetCurrentProcess())
    kernel.K32GetProcessMemoryInfo(handle, ctypes.byref(counters), counters.size)
    return counters.peak_working_set
