"""The command line's manners: what it imports, prints and returns, whatever the command."""

import io
import os
import subprocess
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from cleangpt2 import __version__
from cleangpt2.cli import main as cli
from cleangpt2.cli import terminal
from cleangpt2.errors import CleanGPT2Error, ConfigError
from tests.helpers import ROOT, run_cli, run_python


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A nested config that checks itself."""

    width: int
    """Channels."""
    scale: float = 1.0
    """A factor."""

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ConfigError(f"width {self.width} is odd: give an even one")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """A nested config whose flags have no prefix."""

    speed: float = 1.0
    """Words a second."""
    pause: int = 2
    """Between sentences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the pretended command below takes."""

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to say."""
    shape: Shape
    """Its form."""
    manner: Annotated[Manner, tyro.conf.arg(name="")] = Manner(pause=7)
    top_k: int | None = None
    """A number."""
    out: Path = Path("out")
    """A folder."""
    loud: bool = False
    """A switch."""
    tone: Literal["kind", "stern"] = "kind"
    """A choice."""
    inputs: tuple[Path, ...] = ()
    """Several files."""
    config: Path | None = None
    """A TOML file with any of these."""


@pytest.fixture
def seen(monkeypatch):
    """A command ``say`` that notes its options, or fails the way ``say.fails`` says."""
    module = types.ModuleType("tests.say")
    module.EXAMPLE = "\n    cleangpt2 say hello --shape.width 2\n"
    module.Options = Options
    module.calls, module.fails = [], None

    def run(options):
        module.calls.append(options)
        if module.fails is not None:
            raise module.fails

    module.run = run
    monkeypatch.setitem(sys.modules, "tests.say", module)
    monkeypatch.setitem(cli.COMMANDS, "say", cli.Command("tests.say", "say something"))
    return module


def test_no_arguments_show_the_same_list_as_help(capsys):
    assert cli.main([]) == 0
    alone = capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().out == alone


def test_help_starts_with_an_example_and_lists_every_command(capsys):
    cli.main(["--help"])
    out = capsys.readouterr().out
    assert out.startswith("cleangpt2 ")
    for name, command in cli.COMMANDS.items():
        assert any(name in line and command.summary in line for line in out.splitlines())


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cleangpt2 {__version__}\n"


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["genrate"], "Did you mean 'generate'?"),
        (["tokenizer", "trian"], "Did you mean 'tokenizer train'?"),
        (["--verison"], "`cleangpt2 --help`"),
    ],
)
def test_an_unknown_command_costs_one_line_and_exit_code_2(words, suggestion, capsys):
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert repr(" ".join(words)) in err
    assert suggestion in err


def test_the_first_word_of_a_family_lists_the_family(capsys):
    assert cli.main(["tokenizer"]) == 0
    out = capsys.readouterr().out
    assert "tokenizer train" in out
    assert "pretrain" not in out


def test_a_commands_help_starts_with_its_example(seen, capsys):
    assert cli.main(["say", "--help"]) == 0
    assert capsys.readouterr().out.startswith("cleangpt2 say hello --shape.width 2\n\nusage:")
    assert seen.calls == []


def test_options_reach_the_command(seen):
    assert cli.main(["say", "a", "b", "--shape.width", "4", "--top-k", "-1", "--loud"]) == 0
    (options,) = seen.calls
    assert options == Options(words=("a", "b"), shape=Shape(width=4), top_k=-1, loud=True)


def test_after_two_dashes_everything_is_text(seen):
    assert cli.main(["say", "--shape.width", "2", "--", "--help", "--debug", "--config"]) == 0
    assert seen.calls[0].words == ("--help", "--debug", "--config")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--shape.width", "2", "--topk", "3"], "--top-k"),
        (["--shape.width", "2", "--top-k", "many"], "'many'"),
        ([], "--shape.width"),
    ],
)
def test_a_wrong_option_costs_one_line_and_exit_code_2(seen, words, says, capsys):
    assert cli.main(["say", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert says in err
    assert "cleangpt2 say --help" in err
    assert not set("│─╭╯") & set(err)
    assert seen.calls == []


def test_a_value_that_a_config_refuses_costs_its_line_and_exit_code_1(seen, capsys):
    assert cli.main(["say", "--shape.width", "3"]) == 1
    assert capsys.readouterr().err == "error: width 3 is odd: give an even one\n"


def test_an_error_of_the_users_is_one_line_and_exit_code_1(seen, capsys):
    seen.fails = CleanGPT2Error("the value,\n  the limit and the way out")
    assert cli.main(["say", "--shape.width", "2"]) == 1
    assert capsys.readouterr() == ("", "error: the value, the limit and the way out\n")


def test_a_warning_is_one_line_beside_the_output(seen, capsys):
    seen.run = lambda options: warnings.warn("a slower\n  path", stacklevel=1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.main(["say", "--shape.width", "2"]) == 0
    assert capsys.readouterr() == ("", "warning: a slower path\n")


def test_debug_shows_the_traceback_wherever_it_stands(seen):
    seen.fails = CleanGPT2Error("no")
    for words in (["--debug", "say"], ["say", "--debug"]):
        with pytest.raises(CleanGPT2Error, match="no"):
            cli.main([*words, "--shape.width", "2"])


def test_our_own_mistakes_are_not_hidden(seen):
    seen.fails = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError):
        cli.main(["say", "--shape.width", "2"])


def test_control_c_is_130_without_a_traceback(seen, capsys):
    seen.fails = KeyboardInterrupt()
    assert cli.main(["say", "--shape.width", "2"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("module", ["cleangpt2.cli.main", "tyro", "torch"])
def test_control_c_during_an_import_is_130_without_a_traceback(module):
    code = f"""
import runpy, sys

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Impatient())
sys.argv = ["cleangpt2", "generate", "hi"]
runpy.run_module("cleangpt2", run_name="__main__")
"""
    done = run_python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nstopped\n")


@pytest.mark.skipif(os.name == "nt", reason="a closed pipe is another error on Windows")
def test_a_reader_that_goes_away_is_no_error():
    command = [sys.executable, "-m", "cleangpt2", "--help"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, stdout=write_end, stderr=subprocess.PIPE, env=env, timeout=60, check=False
    )
    os.close(write_end)
    assert done.stderr == b""
    assert done.returncode == 141


def test_without_tyro_one_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert cli.main(["generate", "hello"]) == 2
    assert capsys.readouterr().err == "error: the command line needs tyro: pip install tyro\n"


def test_the_module_and_the_script_are_one_command():
    done = run_cli("--version")
    assert (done.returncode, done.stdout) == (0, f"cleangpt2 {__version__}\n")


# --- defaults from a TOML file -------------------------------------------------------------


def test_flags_win_over_the_file_and_the_file_over_defaults(seen, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('top_k = 5\nout = "there"\nwords = ["hi"]\n[shape]\nwidth = 4\nscale = 2\n')
    assert cli.main(["say", "--config", str(file), "--shape.width", "8"]) == 0
    shape = Shape(width=8, scale=2.0)
    assert seen.calls[-1] == Options(
        words=("hi",), shape=shape, top_k=5, out=Path("there"), config=file
    )
    assert isinstance(seen.calls[-1].shape.scale, float)


def test_flags_complete_and_mend_what_the_file_leaves(seen, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("loud = true\n[shape]\nwidth = 3\n")
    assert cli.main(["say", f"--config={file}", "--shape.width", "2", "--no-loud"]) == 0
    assert seen.calls[-1] == Options(shape=Shape(width=2), config=file)


def test_a_required_value_may_be_missing_from_the_file_only_if_a_flag_gives_it(
    seen, tmp_path, capsys
):
    file = tmp_path / "run.toml"
    file.write_text("[shape]\nscale = 3.0\n")
    assert cli.main(["say", "--config", str(file)]) == 2
    assert "--shape.width" in capsys.readouterr().err
    assert cli.main(["say", "--config", str(file), "--shape.width", "2"]) == 0
    assert seen.calls[-1].shape == Shape(width=2, scale=3.0)


def test_a_part_without_a_prefix_needs_no_table(seen, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("speed = 3\n[shape]\nwidth = 2\n")
    assert cli.main(["say", "--config", str(file)]) == 0
    assert seen.calls[-1].manner == Manner(speed=3.0, pause=7)  # the default of this command
    assert cli.main(["say", "--config", str(file), "--speed", "4"]) == 0
    assert seen.calls[-1].manner == Manner(speed=4.0, pause=7)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (
            "top_q = 5",
            "no option 'top_q'. Did you mean 'top_k'? Known: words, shape, speed, pause, top_k",
        ),
        ("[shape]\nwitdh = 4", "shape: no option 'witdh'. Did you mean 'width'?"),
        ("top_k = 'five'", "top_k = 'five' should be a whole number"),
        ("top_k = true", "top_k = True should be a whole number"),
        ("words = [1]", "words[0] = 1 should be a text"),
        ("words = 'hi'", "words = 'hi' should be a list of texts"),
        ("tone = 'rude'", "tone = 'rude' should be one of kind, stern"),
        ("inputs = 'a.txt'", "inputs = 'a.txt' should be a list of paths"),
        ("shape = 4", "shape = 4 should be a table"),
        ("out = 3", "out = 3 should be a path"),
        ("loud = 1", "loud = 1 should be true or false"),
        ("top_k =", "is not a TOML file"),
        ("[shape]\nwidth = 3", "width 3 is odd"),
    ],
)
def test_a_file_with_a_mistake_costs_one_line(seen, tmp_path, capsys, toml, says):
    file = tmp_path / "run.toml"
    file.write_text(toml)
    assert cli.main(["say", "--config", str(file)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert says in err
    assert seen.calls == []


def test_a_file_that_is_not_there_costs_one_line(seen, capsys):
    assert cli.main(["say", "--config", "nowhere.toml"]) == 1
    assert "cannot read the config file nowhere.toml" in capsys.readouterr().err


# --- colour ----------------------------------------------------------------------------------


class Bytes(io.BytesIO):
    """A file in memory whose methods can be set."""


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "on_a_screen", "in_a_pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
    ],
)
def test_colour_only_where_it_is_welcome(monkeypatch, environment, on_a_screen, in_a_pipe):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for stream, coloured in ((Screen(), on_a_screen), (io.StringIO(), in_a_pipe)):
        assert ("\x1b[" in terminal.paint("text", "red", stream)) is coloured
        assert ("\x1b[" in terminal.stripe("text", 3, stream)) is coloured


def test_warnings_go_beside_the_output(capsys):
    terminal.warn("mind the gap")
    assert capsys.readouterr() == ("", "warning: mind the gap\n")


@pytest.mark.parametrize(("is_screen", "shown"), [(True, "caf\xe9 ?"), (False, "caf\xe9 \u2603")])
def test_an_old_code_page_never_stops_the_text(monkeypatch, is_screen, shown):
    raw = Bytes()
    raw.isatty = lambda: is_screen
    stream = io.TextIOWrapper(raw, encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.speak_utf8()
    stream.write("caf\xe9 \u2603")
    stream.flush()
    assert raw.getvalue().decode("cp1252" if is_screen else "utf-8") == shown


@pytest.mark.skipif(os.name == "nt", reason="scripts have another ending there")
@pytest.mark.parametrize(
    ("search_path", "folder", "typed"),
    [
        ("venv/bin", ".", "cleangpt2"),  # the environment is active
        ("", ".", str(Path("venv/bin/cleangpt2"))),
        ("", "elsewhere", "{root}/venv/bin/cleangpt2"),
    ],
)
def test_hints_name_the_command_as_it_can_be_typed(
    tmp_path, monkeypatch, search_path, folder, typed
):
    script = tmp_path / "venv" / "bin" / "cleangpt2"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(sys, "executable", str(script.parent / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / search_path) if search_path else "")
    monkeypatch.chdir(tmp_path / folder)
    assert terminal.command() == typed.format(root=tmp_path)


def test_hints_name_the_plain_command_where_no_script_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert terminal.command() == "cleangpt2"
