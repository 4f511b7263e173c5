"""What the commands ask of a terminal: colour where it is welcome, messages beside the output.

Results go to standard output and nothing else does, so that ``cleangpt2 ... | next`` always
works; warnings and errors go to standard error.
"""

import codecs
import io
import os
import shutil
import sys
from pathlib import Path
from typing import Protocol, runtime_checkable

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}
_BACKGROUNDS = ("48;5;153", "48;5;187", "48;5;182", "48;5;151", "48;5;223")  # pale, told apart
_BLACK_TEXT = "30"

# Unicode has a picture of each control character below 32 and of 127, of the others none.
_VISIBLE = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_VISIBLE |= {0x7F: "\u2421"} | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}


@runtime_checkable
class Stream(Protocol):
    """What decides about colour: a file, a pipe or a terminal."""

    def isatty(self) -> bool:
        """Whether somebody is looking."""
        ...


def has_colour(stream: Stream | None = None) -> bool:
    """Whether colour codes belong on ``stream`` (standard output by default).

    ``NO_COLOR`` forbids them, ``FORCE_COLOR`` asks for them, else a terminal decides.
    """
    stream = stream or sys.stdout
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("TERM") == "dumb" or not stream.isatty():
        return False
    if os.name == "nt":
        os.system("")  # an empty command makes older Windows consoles understand colour codes
    return True


def paint(text: str, style: str, stream: Stream | None = None) -> str:
    """``text`` in bold, dim or a colour where ``stream`` shows it, else as it is."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if has_colour(stream) else text


def stripe(text: str, number: int, stream: Stream | None = None) -> str:
    """``text`` on a pale ground that changes with ``number``, to show where pieces meet."""
    ground = _BACKGROUNDS[number % len(_BACKGROUNDS)]
    return f"\x1b[{_BLACK_TEXT};{ground}m{text}\x1b[0m" if has_colour(stream) else text


def ground(text: str, colour: int, stream: Stream | None = None) -> str:
    """``text`` in black on one of a terminal's 256 colours, which should be a light one."""
    # Black is 16 of the 256: the theme decides what the plain one looks like.
    return f"\x1b[38;5;16;48;5;{colour}m{text}\x1b[0m" if has_colour(stream) else text


def harmless(text: str, stream: Stream | None = None) -> str:
    r"""``text`` with control characters made visible if ``stream`` is a terminal.

    A model may write any byte, and a terminal obeys escape sequences: they can hide text, change
    a title, or fill in what you type next. As with ``ls``, a pipe gets the text as it is.

    >>> class Terminal:
    ...     isatty = lambda self: True
    >>> harmless("\x1b[2J red\n", Terminal())
    '␛[2J red\n'
    """
    return text.translate(_VISIBLE) if (stream or sys.stdout).isatty() else text


def command() -> str:
    """What a person types here to call this program, which may not be on the search path."""
    script = shutil.which("cleangpt2", path=str(Path(sys.executable).parent))
    if script is None or shutil.which("cleangpt2") == script:
        return "cleangpt2"
    here = Path.cwd()
    return str(Path(script).relative_to(here) if Path(script).is_relative_to(here) else script)


def warn(message: str) -> None:
    """One line on standard error that does not stop the work."""
    print(
        paint("warning:", "yellow", sys.stderr),
        harmless(message, sys.stderr),
        file=sys.stderr,
        flush=True,
    )


def error(message: str) -> None:
    """One line on standard error that says why the work stopped."""
    print(
        paint("error:", "red", sys.stderr),
        harmless(message, sys.stderr),
        file=sys.stderr,
        flush=True,
    )


def speak_utf8() -> None:
    """Make every character printable, also on a Windows console with an old code page.

    A console that knows only its code page shows ``?`` for what it lacks; files and pipes get
    UTF-8, whatever the code page.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue  # a notebook's, or none at all
        if codecs.lookup(stream.encoding).name == "utf-8":
            continue
        if stream.isatty():
            stream.reconfigure(errors="replace")
        else:
            stream.reconfigure(encoding="utf-8")
