"""The machine and what is installed on it: versions, threads, network switches, the cache."""

import importlib.metadata
import itertools
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import cleangpt2
from cleangpt2.doctor.finding import Finding, guarded
from cleangpt2.model.summary import show_bytes

SECTION = "environment"

EXTRAS = {"fast": "encodes large texts many times faster"}
"""The extras that a command here uses, and what each is for."""

_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_PLACES = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HTTPS_PROXY")
_ROOM = 2e9  # bytes; "gpt2" takes a quarter of it


def environment() -> Iterator[Finding]:
    """Everything below, one after the other."""
    yield from guarded(SECTION, "system", _system)
    yield from guarded(SECTION, "packages", _packages)
    yield from guarded(SECTION, "extras", _extras)
    yield from guarded(SECTION, "threads", _threads)
    yield from guarded(SECTION, "network", _network)
    yield from guarded(SECTION, "cache", _cache)


def _system() -> Iterator[Finding]:
    yield Finding(SECTION, "system", "ok", f"{platform.platform()}, {platform.machine()}")
    where = f"{platform.python_version()} in {sys.prefix}, cleangpt2 {cleangpt2.__version__}"
    yield Finding(SECTION, "Python", "ok", where)


def _packages() -> Iterator[Finding]:
    """The packages that must be there, in one line, and each that is missing or too old."""
    fine = []
    for name, floor in requirements()[""].items():
        version = installed(name)
        if version is not None and not _older(version, floor):
            fine.append(f"{name} {version}")
            continue
        what = "is missing" if version is None else f"{version} is older than {floor}"
        install = f'python -m pip install -U "{name}>={floor}"'
        yield Finding(SECTION, name, "failed", what, f"run: {install}")
    yield Finding(SECTION, "packages", "ok", ", ".join(fine))


def _extras() -> Iterator[Finding]:
    """The optional packages: those that are here, those that are not, and those too old."""
    here, missing = [], []
    for extra, purpose in EXTRAS.items():
        needs = requirements().get(extra, {})
        versions = {name: installed(name) for name in needs}
        if None in versions.values() or not needs:
            missing.append(f"{extra} ({purpose})")
            continue
        here.append(f"{extra} ({purpose})")
        for name, version in versions.items():
            if version is not None and _older(version, needs[name]):
                detail = f"{version} is older than {needs[name]}, which {extra!r} needs"
                advice = f'run: python -m pip install -U "cleangpt2[{extra}]"'
                yield Finding(SECTION, name, "warning", detail, advice)
    if here:
        yield Finding(SECTION, "extras", "ok", ", ".join(here))
    if missing:
        advice = 'if you want one: python -m pip install "cleangpt2[NAME]"'
        yield Finding(SECTION, "extras not installed", "ok", ", ".join(missing), advice)


def _threads() -> Iterator[Finding]:
    import torch

    cores = os.cpu_count() or 1
    detail = f"PyTorch uses {torch.get_num_threads()} of {cores} cores"
    if limit := os.environ.get("OMP_NUM_THREADS"):
        detail += f" (OMP_NUM_THREADS is {limit})"
    if torch.get_num_threads() > cores:
        advice = "unset OMP_NUM_THREADS: threads that share a core slow each other down"
        yield Finding(SECTION, "threads", "warning", detail, advice)
    else:
        yield Finding(SECTION, "threads", "ok", detail)


def _network() -> Iterator[Finding]:
    # An address may hold a password: `http://name:password@host`.
    places = [
        f"{name} is {re.sub('//[^/@]*@', '//', value)}"
        for name in _PLACES
        if (value := os.environ.get(name))
    ]
    off = [name for name in _SWITCHES if os.environ.get(name, "0").lower() not in ("0", "", "no")]
    if off:
        detail = f"{' and '.join(off)} is set: nothing is downloaded"
        advice = f"unset {' and '.join(off)} to use models that are not on this machine yet"
        yield Finding(SECTION, "network", "warning", detail, advice)
    else:
        detail = "; ".join(places) or "no variable changes where models come from"
        yield Finding(SECTION, "network", "ok", detail)


def _cache() -> Iterator[Finding]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    detail = f"{folder}, {show_bytes(free)} free"
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        advice = "set HF_HOME to a folder that you may write to"
        yield Finding(SECTION, "cache", "warning", f"{detail}, but not writable", advice)
    elif free < _ROOM:
        advice = "make room, or set HF_HOME to a folder on another disk"
        yield Finding(SECTION, "cache", "warning", detail, advice)
    else:
        yield Finding(SECTION, "cache", "ok", detail)


def requirements() -> dict[str, dict[str, str]]:
    """Extra -> package -> lowest version; the extra ``""`` is what must be there."""
    try:
        lines = importlib.metadata.requires("cleangpt2") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is only on the path
        path = Path(cleangpt2.__file__).parents[1] / "pyproject.toml"
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        lines = list(project["dependencies"])
        for extra, needs in project["optional-dependencies"].items():
            lines += [f'{need}; extra == "{extra}"' for need in needs]
    found: dict[str, dict[str, str]] = {"": {}}
    for line in lines:
        need, _, marker = line.partition(";")
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)""", marker)
        name, floor = re.match(r"\s*([\w.-]+)", need), re.search(r"[>=]=\s*([\w.]+)", need)
        if name and name[1] != "cleangpt2":  # an extra may include others
            table = found.setdefault(extra[1] if extra else "", {})
            table[name[1]] = floor[1] if floor else "0"
    return found


def installed(name: str) -> str | None:
    """The version of a package, ``None`` where it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _older(version: str, floor: str) -> bool:
    """Whether a version stands before another one.

    >>> _older("2.9.1+cpu", "2.11"), _older("2.11", "2.11.0"), _older("2.13.0", "2.11")
    (True, False, False)
    """
    parts = [[int(n) for n in re.findall(r"\d+", v.split("+")[0])] for v in (version, floor)]
    first, second = zip(*itertools.zip_longest(*parts, fillvalue=0), strict=True)
    return first < second
