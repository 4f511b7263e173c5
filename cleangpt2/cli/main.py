"""The command ``cleangpt2``: a table of commands, and one way to run each of them.

A command is a module of this folder with three names:

    EXAMPLE   shell lines that its --help starts with
    Options   a frozen dataclass: the docstring under a field is its help (read by tyro)
    run       what it does with the Options; returns an exit code, or None for 0

A command that trains has a fourth, ``cost``: what the run will take, for ``plan``; its command
line may ask for a sweep (``sweep.py``). A command that takes another's command line has
``arrange``, which puts the words in an order that tyro understands.

Only the module asked for is imported, and torch only inside ``run``, so help costs no
seconds. An ``Options`` with a field ``config: Path | None`` also reads its defaults from a
TOML file (``config_file.py``).

Exit codes: 0 done, 1 a mistake that one line explains, 2 a wrong command line, 130 Ctrl-C.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TextIO

import cleangpt2
from cleangpt2.cli import sweep, terminal
from cleangpt2.cli.options import HELP_FLAGS, UsageError, parse
from cleangpt2.errors import CleanGPT2Error, did_you_mean


class Command(NamedTuple):
    """Where a command lives and what the list of commands says of it."""

    module: str
    summary: str


GROUPS: dict[str, dict[str, Command]] = {
    "Start here": {
        "demo": Command("cleangpt2.cli.demo", "see it all in a few minutes, offline"),
    },
    "Use a model": {
        "generate": Command("cleangpt2.cli.generate", "continue a text, streaming"),
        "chat": Command("cleangpt2.cli.chat", "talk with a model that was taught to answer"),
        "compare": Command("cleangpt2.cli.compare", "several models side by side, token by token"),
        "tokenize": Command("cleangpt2.cli.tokenize", "show the tokens of a text and their ids"),
        "info": Command("cleangpt2.cli.info", "layers, shapes, parameters and memory of a model"),
        "doctor": Command("cleangpt2.cli.doctor", "check this machine, its devices and a model"),
    },
    "Make a model": {
        "tokenizer train": Command("cleangpt2.cli.tokenizer_train", "learn a vocabulary from text"),
        "data prepare": Command("cleangpt2.cli.data_prepare", "turn a corpus into token shards"),
        "pretrain": Command("cleangpt2.cli.pretrain", "train a model on text, anew or further"),
        "sft": Command("cleangpt2.cli.sft", "teach a model to answer examples, and to stop"),
        "plan": Command("cleangpt2.cli.plan", "memory and time of a training command beforehand"),
        "report": Command("cleangpt2.cli.report", "curves and samples of runs as one HTML page"),
        "convert": Command("cleangpt2.cli.convert", "read another program's weights into a folder"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

_INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended
_PIPE_CLOSED = 141  # and for one whose reader went away, as in `cleangpt2 generate | head -1`


def entry() -> None:
    """What the installed script and ``python -m cleangpt2`` call."""
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Now and then a thread of torch.distributed aborts the process while Python takes itself
        # apart, after all is done and saved; torchrun would call the run failed and repeat it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        argv: The words after ``cleangpt2``; those of this process by default.
    """
    terminal.speak_utf8()
    debug, words = _take_debug(list(sys.argv[1:] if argv is None else argv))
    if not debug:
        warnings.showwarning = _show_warning  # ty: ignore[invalid-assignment] (made for this)
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # here, where a closed pipe is still caught
        return code
    except CleanGPT2Error as error:
        if debug:
            raise
        if not error.elsewhere:
            terminal.error(" ".join(str(error).split()))
        return 1
    except UsageError as error:
        terminal.error(str(error))
        return 2
    except KeyboardInterrupt as stop:
        if debug:
            raise
        if not getattr(stop, "elsewhere", False):
            print(f"\n{stop}" if stop.args else "\nstopped", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line, as for errors; which line of which file it came from is for ``--debug``."""
    terminal.warn(" ".join(str(message).split()))


def _take_debug(words: list[str]) -> tuple[bool, list[str]]:
    """Whether ``--debug`` was given, and the other words; after ``--`` it is plain text.

    >>> _take_debug(["generate", "--debug", "--", "--debug"])
    (True, ['generate', '--', '--debug'])
    """
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return len(kept) < end, kept + words[end:]


def _dispatch(words: list[str]) -> int:
    """Print what was asked about, or run the command that was asked for."""
    if not words or words[0] in HELP_FLAGS:
        print(_overview())
        return 0
    if words[0] == "--version":
        print(f"cleangpt2 {cleangpt2.__version__}")
        return 0
    for length in (2, 1):
        name, rest = " ".join(words[:length]), words[length:]
        if name in COMMANDS:
            return _run(name, COMMANDS[name], rest)
    family = [name for name in COMMANDS if name.startswith(words[0] + " ")]
    if family and set(words[1:]) <= HELP_FLAGS:
        print("\n".join(_lines(family)))
        return 0
    asked = " ".join(words[:2]) if family else words[0]
    raise UsageError(
        f"there is no command {asked!r}.{did_you_mean(asked, COMMANDS)}"
        " `cleangpt2 --help` lists them."
    )


def _overview() -> str:
    """The text of ``cleangpt2 --help``."""
    lines = ['cleangpt2 generate "Once upon a time"', ""]
    lines += ["usage: cleangpt2 COMMAND [options]"]
    for title, commands in GROUPS.items():
        lines += ["", terminal.paint(title, "bold"), *_lines(commands)]
    lines += ["", "`cleangpt2 COMMAND --help` shows an example and the options of a command."]
    lines += ["--version prints the version; --debug, with any command, shows tracebacks."]
    return "\n".join(lines)


def _lines(names: Iterable[str]) -> Iterator[str]:
    """One line a command, the summaries aligned."""
    width = max(map(len, COMMANDS)) + 2
    return (f"  {name:<{width}}{COMMANDS[name].summary}" for name in names)


def _run(name: str, command: Command, words: list[str]) -> int:
    """Import the command's module, read its options and run it."""
    try:
        import tyro  # noqa: F401 (a third of a second, and only commands need it)
    except ModuleNotFoundError:
        raise UsageError("the command line needs tyro: pip install tyro") from None
    module = importlib.import_module(command.module)
    words = getattr(module, "arrange", list)(words)
    if hasattr(module, "cost") and sweep.is_swept(words):
        return sweep.sweep(name, command.summary, module, words)
    options = parse(f"cleangpt2 {name}", command.summary, module, words)
    return 0 if options is None else module.run(options) or 0
