"""From the words of a command line to a command's ``Options``, through tyro.

tyro makes flags, types and help from the dataclass. What it does not know is added here: help
starts with an example, a mistake is one line, and defaults may come from a TOML file.
"""

import contextlib
import io
import re
import textwrap
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from cleangpt2.errors import CleanGPT2Error

HELP_FLAGS = {"-h", "--help"}

TRAINERS = (
    "`cleangpt2 plan` and the same words tell beforehand what it will take. With --sweep "
    "NAME=V1,V2 it is run once for each value, in folders of its own under --out, and the runs "
    "are compared in one report; several --sweep make a grid."
)
"""What every command that trains can do."""


class UsageError(Exception):
    """A command line that means nothing; the message says what would."""


def parse(prog: str, summary: str, module: ModuleType, words: list[str]) -> Any | None:
    """The module's ``Options`` from the command line; ``None`` after ``--help``.

    Raises:
        UsageError: tyro refused the words. Its box of several lines becomes one.
        CleanGPT2Error: A config dataclass refused a value.
    """
    import tyro

    before_dashes = words[: words.index("--")] if "--" in words else words
    if not HELP_FLAGS.isdisjoint(before_dashes):
        print(textwrap.dedent(module.EXAMPLE).strip(), end="\n\n")
    complaint = io.StringIO()
    try:
        defaults = _config_file_defaults(module.Options, before_dashes)
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                module.Options,
                prog=prog,
                description=_description(summary, module),
                args=words,
                config=(tyro.conf.PositionalMetavarFromFieldName,),
                **defaults,
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        reason: BaseException | None = stop
        while reason := reason.__context__:
            if isinstance(reason, CleanGPT2Error):
                raise reason from None
        raise UsageError(_one_line(complaint.getvalue())) from None


def _description(summary: str, module: ModuleType) -> str:
    """What help says of a command, and of all commands that train."""
    said = f"{summary[0].upper()}{summary[1:]}."
    return f"{said} {TRAINERS}" if hasattr(module, "cost") else said


def _config_file_defaults(options: Any, words: list[str]) -> dict[str, Any]:
    """``{"default": ...}`` for tyro if the command reads TOML files and one is named."""
    if "config" not in {field.name for field in fields(options)}:
        return {}
    from cleangpt2.cli.config_file import read_options

    spelt_apart = [part for word in words for part in re.split("(?<=^--config)=", word)]
    if "--config" not in spelt_apart[:-1]:
        return {}  # a `--config` without its file is for tyro to refuse
    path = spelt_apart[spelt_apart.index("--config") + 1]
    return {"default": read_options(options, Path(path))}


def _one_line(box: str) -> str:
    """What tyro's error box says, without the box.

    >>> print(_one_line('''
    ... ╭─ Unrecognized options ────────────╮
    ... │ Unrecognized options: --topk, 3   │
    ... │ ───────────────────────────────── │
    ... │ Perhaps you meant:                │
    ... │     --top-k INT                   │
    ... ╰───────────────────────────────────╯'''))
    Unrecognized options: --topk, 3; Perhaps you meant: --top-k INT
    """
    sections: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).strip().splitlines():
        row = line.strip("│╭╮╰╯ ")  # where the terminal has no UTF-8, the box has no sides
        if line.startswith("╭") or not row.strip("─- "):
            sections.append([])
        else:
            sections[-1] += row.split()
    parts = [" ".join(words) for words in sections[1:] if words]
    if re.match("Unrecognized options: [^-]", parts[0]):
        parts.insert(1, "a text of several words needs quotes")
    return "; ".join(parts)
