"""Where a model folder comes from: its ``lineage.json``.

It holds the size and sha256 of every file that makes the model, the same of what the model was
made from, and the version of the code that made it. So a folder can be checked byte by byte, and
a chain of folders followed back to the text it began with. There is no date and no path in it:
equal folders made by equal code have equal lineages.
"""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleangpt2 import __version__
from cleangpt2.errors import CheckpointError, DataError
from cleangpt2.files import read_text

LINEAGE = "lineage.json"
FORMAT = 1

# What makes a model: configuration, weights and tokenizer, as the hub and as OpenAI name them.
# Names without a slash, so that a lineage from a stranger cannot point out of its folder.
_MODEL_FILE = re.compile(
    r"(config|generation_config|hparams|encoder|vocab|added_tokens|special_tokens_map"
    r"|tokenizer|tokenizer_config)\.json|merges\.txt|vocab\.bpe|checkpoint|model\.ckpt[\w.-]*"
    r"|(model|pytorch_model)(-[\w-]+)?\.(safetensors|bin)(\.index\.json)?"
)
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells one file's content from any other's."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """A model that another one was made from."""

    name: str
    files: dict[str, Fingerprint]
    """Its own ``lineage.json`` among them, where it has one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """The version of this package."""

    version: str
    sha256: str
    """Of all its Python files."""
    commit: str | None
    """Of the checkout it lies in; ``None`` for an installed package."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """How a model was made, and what its files were when they were written."""

    made_by: str
    """``pretrain``, ``convert``, ``save``, or the name of a recipe."""
    code: Code | None
    """``None`` where nobody wrote it down."""
    parent: Parent | None = None
    data: dict[str, Fingerprint] = field(default_factory=dict)
    """The files it was trained on, where they are known."""
    settings: Fingerprint | None = None
    """The ``config.json`` of the run that made it, with every change of settings on the way."""
    files: dict[str, Fingerprint] = field(default_factory=dict)


def write(scratch: Path, folder: Path, made: Lineage | None = None) -> None:
    """Leave in `scratch` the lineage that `folder` will have when the files of `scratch` move in.

    A file of `folder` that stays keeps the fingerprint it was written with: a copy that was
    damaged since must not be taken for the original.

    Args:
        scratch: The new files (see ``files.written_aside``), or `folder` itself.
        folder: Where they go.
        made: How the model was made; its `files` are filled in here. ``None`` where the model is
            the old one and only other files change: then it stays as the folder tells it.
    """
    before = _read_if_whole(folder)
    made = made or before or Lineage(made_by="save", code=code())
    recorded = before.files if before else {}
    files = {
        path.name: recorded.get(path.name) or fingerprint(path)
        for path in model_files(folder)
        if scratch != folder
    } | {path.name: fingerprint(path) for path in model_files(scratch)}
    content = {"format": FORMAT} | dataclasses.asdict(dataclasses.replace(made, files=files))
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (scratch / LINEAGE).write_text(text, encoding="utf-8", newline="\n")


def read(folder: Path) -> Lineage | None:
    """The lineage of a folder; ``None`` where it has none.

    Raises:
        CheckpointError: The file is damaged, or written by a later version.
    """
    path = folder / LINEAGE
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
        if (found := content.pop("format")) != FORMAT:
            raise ValueError(f"its format is {found!r}, this version reads {FORMAT}")
        return _parse(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be used ({type(error).__name__}: {error}): copy the folder again"
        ) from None


def differences(folder: Path, lineage: Lineage) -> dict[str, str]:
    """File -> what sets it apart from the one that was written; empty if all are as they were."""
    found = {}
    for name, written in lineage.files.items():
        path = folder / name
        if not _MODEL_FILE.fullmatch(name):
            found[name] = "is no file of a model"
        elif not path.is_file():
            found[name] = "is missing"
        elif (size := path.stat().st_size) != written.bytes:
            found[name] = f"has {size:,} bytes, {written.bytes:,} were written"
        elif (now := fingerprint(path).sha256) != written.sha256:
            found[name] = f"has sha256 {now[:12]}..., {written.sha256[:12]}... was written"
    return found


def model_files(folder: Path) -> list[Path]:
    """The files of a folder that make its model, by name."""
    return sorted(
        path for path in folder.iterdir() if _MODEL_FILE.fullmatch(path.name) and path.is_file()
    )


def parent(name: str, folder: Path, further: Iterable[Path] = ()) -> Parent:
    """The model in a folder, as the origin of another one.

    Args:
        name: What it is called.
        folder: Where it is.
        further: Files of it whose names do not say so.
    """
    files = [*model_files(folder), *folder.glob(LINEAGE), *further]
    return Parent(name=name, files=fingerprints(files))


def fingerprints(paths: Iterable[Path]) -> dict[str, Fingerprint]:
    """The fingerprints of files, each under its name or as much of its path as tells it apart.

    Raises:
        DataError: A file cannot be read.
    """
    absolute = sorted({path.expanduser().absolute() for path in paths})
    shown = {path: path.name for path in absolute}
    if len(set(shown.values())) < len(absolute):
        above = os.path.commonpath([path.parent for path in absolute])
        shown = {path: path.relative_to(above).as_posix() for path in absolute}
    try:
        return {name: fingerprint(path) for path, name in shown.items()}
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}), so its hash cannot be recorded; "
            "name files that are there"
        ) from None


def fingerprint(path: Path) -> Fingerprint:
    """Size and sha256 of one file."""
    with path.open("rb") as file:
        return Fingerprint(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def code() -> Code:
    """The version of the package that runs."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        # Without the carriage returns that git gives the files on Windows.
        content = path.read_bytes().replace(b"\r\n", b"\n")
        name = path.relative_to(_PACKAGE).as_posix()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return Code(version=__version__, sha256=digest.hexdigest(), commit=_commit())


def _commit() -> str | None:
    """The commit of the checkout that the package lies in.

    A package that is installed may lie below somebody else's repository, whose commit says
    nothing; so the repository must be ours, with its ``pyproject.toml`` beside the package.
    """
    root = _PACKAGE.parent
    project = root / "pyproject.toml"
    if not ((root / ".git").exists() and project.is_file()):
        return None
    if 'name = "cleangpt2"' not in project.read_text(encoding="utf-8"):
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _read_if_whole(folder: Path) -> Lineage | None:
    try:
        return read(folder)
    except CheckpointError:
        return None  # it is about to be replaced


def _parse(content: Any) -> Lineage:
    """A lineage from its JSON; raises whatever does not fit."""
    code, parent = content["code"], content["parent"]
    return Lineage(
        made_by=_word(content["made_by"]),
        code=None if code is None else _parse_code(code),
        parent=None if parent is None else _parse_parent(parent),
        data=_parse_files(content["data"]),
        settings=_parse_settings(content.get("settings")),
        files=_parse_files(content["files"]),
    )


def _parse_code(content: Any) -> Code:
    commit = content["commit"]
    return Code(
        version=_word(content["version"]),
        sha256=_word(content["sha256"]),
        commit=None if commit is None else _word(commit),
    )


def _parse_parent(content: Any) -> Parent:
    return Parent(name=_word(content["name"]), files=_parse_files(content["files"]))


def _parse_settings(content: Any) -> Fingerprint | None:
    return None if content is None else _parse_files({"config.json": content})["config.json"]


def _parse_files(content: Any) -> dict[str, Fingerprint]:
    files = {}
    for name, value in content.items():
        size, sha256 = value["bytes"], value["sha256"]
        if type(size) is not int or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError(f"{name!r} has no size and sha256")
        files[_word(name)] = Fingerprint(size, sha256)
    return files


def _word(value: Any) -> str:
    """A name that can be shown; a terminal would obey the escape sequences of a stranger's."""
    if not (isinstance(value, str) and value.isprintable()):
        raise ValueError(f"{value!r:.40} is no name")
    return value
