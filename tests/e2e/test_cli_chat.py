"""``cleangpt2 chat`` as a person at a terminal meets it, and as a pipe does."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from cleangpt2.cli import main as cli
from cleangpt2.cli import talk as commands
from cleangpt2.data.records import read_records
from cleangpt2.model.pretrained import save
from cleangpt2.tokenizer.chat import load_template
from tests.helpers import ROOT
from tests.stubs import random_model, small_tokenizer

terminal_only = pytest.mark.skipif(os.name == "nt", reason="needs a Unix pseudo-terminal")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model that was taught a template, and a base model."""
    path, tokenizer = tmp_path_factory.mktemp("models"), small_tokenizer()
    taught = load_template("chatml", tokenizer).tokenizer
    save(random_model(taught.vocab_size, n_positions=96), taught, path / "taught")
    save(random_model(tokenizer.vocab_size, n_positions=96), tokenizer, path / "base")
    return path


@pytest.fixture
def talk(folders, capsys, monkeypatch):
    """Pipe lines into the command: exit code, standard output, standard error."""

    def talk(lines, *words, model="taught"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        given = ["--model", str(folders / model), "--seed", "1", "--max-new-tokens", "8", *words]
        return cli.main(["chat", *given]), *capsys.readouterr()

    return talk


def answers(out):
    return [json.loads(line) for line in out.splitlines()]


def test_a_line_of_a_pipe_is_a_message_and_its_answer_comes_out(talk):
    code, out, err = talk(["The dog"])
    [told] = answers(talk(["The dog"], "--json")[1])
    assert (code, err, out) == (0, "", told["answer"] + "\n")
    assert told["message"] == "The dog" and told["finish_reason"] in ("stop", "length")


def test_a_seed_gives_the_same_answers_and_another_others(talk):
    lines = ["The dog", "was", "happy"]
    assert talk(lines) == talk(lines)
    assert talk(lines) != talk(lines, "--seed", "2")


def test_history_counts_until_it_is_reset(talk):
    first, second = answers(talk(["The dog", "The dog"], "--json")[1])
    assert first["answer"] != second["answer"]
    fresh = answers(talk(["The dog", "/reset", "The dog"], "--json")[1])
    assert [told["answer"] for told in fresh] == [first["answer"]] * 2


def test_the_system_message_counts(talk):
    assert talk(["The dog"], "--system", "Be kind.")[1] != talk(["The dog"])[1]


def test_undo_retry_and_temperature(talk):
    once, again = answers(talk(["The dog", "/retry"], "--json")[1])
    assert once["message"] == again["message"] and once["answer"] != again["answer"]
    _, _, third = answers(talk(["The dog", "was", "/undo", "was"], "--json")[1])
    assert third == answers(talk(["The dog", "was"], "--json")[1])[1]
    cold = answers(talk(["/temperature 0", "The dog", "/retry"], "--json")[1])
    assert cold[0]["answer"] == cold[1]["answer"]  # greedy: no other answer
    assert cold == answers(talk(["The dog", "/retry"], "--json", "--temperature", "0")[1])


def test_a_saved_conversation_is_an_example_to_learn_from(talk, tmp_path):
    file = tmp_path / "talks" / "all.jsonl"
    _, out, err = talk(["The dog", "was", f"/save {file}"], "--system", "Be <|im_end|>", "--json")
    assert "added to" in err
    [record] = read_records(file)
    contents = [message.content for message in record.messages]
    first, second = (told["answer"] for told in answers(out))
    assert contents == ["Be <|im_end|>", "The dog", first, "was", second]


def test_what_a_slash_can_get_wrong_is_one_line_and_the_talk_goes_on(talk):
    lines = ["/rset", "/save", "/retry", "/temperature warm", "/temperature -1", "The dog"]
    code, out, err = talk(lines)
    said = err.splitlines()
    assert code == 1 and len(said) == 5 and all(line.startswith("error: ") for line in said)
    for line, expected in zip(
        said,
        ["Did you mean '/reset'?", "Name a file", "nothing was said", "no number", "temperature"],
        strict=True,
    ):
        assert expected in line
    assert out == talk(["The dog"])[1]


def test_two_slashes_are_a_message_that_begins_with_one(talk):
    assert answers(talk(["//save"], "--json")[1])[0]["message"] == "/save"


def test_quit_leaves_and_empty_lines_are_no_messages(talk):
    code, out, err = talk(["", "The dog", "", "/quit", "was"], "--json")
    assert (code, err) == (0, "") and [told["message"] for told in answers(out)] == ["The dog"]


def test_what_the_context_forgets_is_said_aloud_once_a_turn(talk):
    lines = [f"{number} the dog was happy" for number in range(5)]
    _, out, err = talk(lines, "--json")
    counts = [told["forgotten"] for told in answers(out)]
    assert counts[0] == 0 and counts[-1] > 0
    told = [line for line in err.splitlines() if "the context is full" in line]
    assert len(told) == len({count for count in counts if count})


def test_a_message_that_is_too_long_is_one_line(talk):
    code, out, err = talk(["dog " * 100, "The dog"])
    assert code == 1 and err.count("\n") == 1 and "at most 88 fit" in err
    assert out == talk(["The dog"])[1]


def test_a_base_model_says_so_and_continues_the_text(talk):
    code, out, err = talk(["The dog", ""], "--json", model="base")
    assert code == 0 and "is a base model, no chat model" in err
    first, second = answers(out)
    assert (first["message"], second["message"]) == ("The dog", "")
    assert answers(talk(["The dog"], "--json", "--template", "plain", model="base")[1])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--template", "chatml"], "chatml needs 302 tokens"),
        (["--system", "Be kind."], "no place for a system message"),
        (["--top-k", "0"], "top_k is 0"),
    ],
)
def test_a_wrong_option_costs_one_line(talk, words, says):
    code, out, err = talk(["The dog"], *words, model="base")
    assert (code, out, err.count("\n")) == (1, "", 1) and says in err


def test_help_names_every_command(talk):
    err = talk(["/help"])[2]
    assert all(name in err for name in commands.COMMANDS)


# --- at a terminal ---------------------------------------------------------------------------


@pytest.fixture
def at_terminal(folders):
    """Start the command at a pseudo-terminal of its own, and talk through it."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()

    def owned():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a key and not our signal

    words = ["--model", str(folders / "taught"), "--seed", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cleangpt2", "chat", *words, "--max-new-tokens", "30"],
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=owned,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(theirs)

    def tell(keys, *until):
        """Press keys, then read up to each of the texts in turn."""
        time.sleep(0.5)  # as a person would: the prompt is shown before its reader is ready
        os.write(ours, keys)
        shown, start = b"", 0
        for text in until:
            while text not in shown[start:]:
                shown += os.read(ours, 65536)
            start = shown.index(text, start) + len(text)
        return shown.decode(errors="replace").replace("\r\n", "\n")

    yield process, tell
    process.kill()
    process.wait()
    os.close(ours)


@terminal_only
@pytest.mark.slow
def test_at_a_terminal_keys_do_what_one_expects(at_terminal):
    process, tell = at_terminal
    assert "chat template chatml; /help lists the commands" in tell(b"", b"> ")
    shown = tell(b"The dog\n", b"--seed 1]", b"> ")
    assert re.search(r"\n\[\d+ tokens, \d+ a second", shown) and "Traceback" not in shown
    assert "another answer" in tell(b"/help\n", b"leaves", b"> ")
    assert "[Ctrl-D leaves]" in tell(b"half a wo\x03", b"leaves]", b"> ")
    tell(b"\x04")
    assert process.wait(30) == 0


@terminal_only
def test_ctrl_c_stops_the_answer_and_not_the_program(monkeypatch, capsys, folders):
    lines = iter(["The dog", "/retry", "/quit"])
    monkeypatch.setattr(
        sys, "stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})()
    )
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    shown = []

    def impatient(text, *args):
        shown.append(text)
        if len(shown) == 3:
            signal.raise_signal(signal.SIGINT)
        return text

    monkeypatch.setattr("cleangpt2.cli.terminal.harmless", impatient)
    words = ["--model", str(folders / "taught"), "--seed", "1", "--max-new-tokens", "8"]
    assert cli.main(["chat", *words]) == 0
    out, err = capsys.readouterr()
    assert "[stopped; /retry asks again, Ctrl-D leaves]" in err and "Traceback" not in err
    broken, again = out.splitlines()
    assert broken == "".join(shown[:2]) and again == "".join(shown[3:])
