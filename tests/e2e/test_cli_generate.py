"""``cleangpt2 generate`` as a person at a terminal meets it, and as a pipe does."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from cleangpt2.cli import generate as command
from cleangpt2.cli import main as cli
from cleangpt2.completion import Completion, Delta
from cleangpt2.model.pretrained import save_model
from tests.helpers import ROOT, run_cli
from tests.stubs import random_model, small_tokenizer

terminal_only = pytest.mark.skipif(os.name == "nt", reason="needs a Unix pseudo-terminal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder: the smallest that writes something."""
    path = tmp_path_factory.mktemp("models") / "little"
    tokenizer = small_tokenizer()
    save_model(random_model(tokenizer.vocab_size, n_positions=64), path)
    tokenizer.save(path)
    return str(path)


@pytest.fixture
def run(folder, capsys):
    """Run the command in this process: exit code, standard output, standard error."""

    def run(*words):
        code = cli.main(["generate", "--model", folder, *words])
        return code, *capsys.readouterr()

    return run


def start(*words, **kwargs):
    """The command in a process of its own, still running."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "cleangpt2", "generate", *words],
        env=environment | kwargs.pop("env", {}),
        **kwargs,
    )


ENDLESS = ["--max-new-tokens", "1000000", "--past-context", "slide", "--seed", "1"]


# ---- what it prints -----------------------------------------------------------------------


def test_prints_prompt_and_text_and_nothing_else(run):
    code, out, err = run("The dog", "--max-new-tokens", "8", "--seed", "1")
    assert (code, err) == (0, "")
    assert out.startswith("The dog") and out.endswith("\n") and len(out) > len("The dog\n")


def test_a_seed_gives_the_same_text_again(run):
    words = ["The dog", "--max-new-tokens", "20", "--seed"]
    assert run(*words, "1") == run(*words, "1")
    assert run(*words, "1") != run(*words, "2")


def test_five_samples_of_length_30_one_after_the_other(run):
    words = ["The dog", "--num-samples", "5", "--max-length", "30", "--seed", "1"]
    code, out, _ = run(*words)
    assert code == 0
    parts = re.split(r"^--- (\d) of 5 ---\n", out, flags=re.MULTILINE)
    assert parts[0] == "" and parts[1::2] == ["1", "2", "3", "4", "5"]
    _, lines, _ = run(*words, "--json")
    rows = sorted((json.loads(line) for line in lines.splitlines()), key=lambda row: row["sample"])
    assert parts[2::2] == [f"The dog{row['text']}\n" for row in rows]
    assert len({row["text"] for row in rows}) == 5
    for row in rows:
        full = len(row["prompt_ids"]) + len(row["ids"]) == 30
        assert row["finish_reason"] == ("length" if full else "stop")


def test_json_lines_hold_whole_completions(run):
    code, out, err = run("girl", "--json", "--num-samples", "2", "--max-new-tokens", "5")
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert row.keys() == set(Completion.__dataclass_fields__)
        assert row["prompt"] == "girl" and len(row["ids"]) == len(row["logprobs"])


def test_a_stop_string_is_not_printed(run):
    whole = run("The dog", "--temperature", "0", "--max-new-tokens", "20")[1]
    text = whole.removeprefix("The dog").removesuffix("\n")
    middle = text[len(text) // 2 : len(text) // 2 + 2]
    stops = ("--stop", "never", "--stop", middle)  # each takes one text, so the prompt may follow
    cut = run(*stops, "The dog", "--temperature", "0", "--max-new-tokens", "20")[1]
    assert cut == f"The dog{text[: text.index(middle)]}\n"


@pytest.mark.parametrize(("prompt", "warned"), [("The dog ", 1), ("The dog\n", 0), ("a b", 0)])
def test_a_prompt_that_ends_in_a_space_is_warned_of(run, prompt, warned):
    code, out, err = run(prompt, "--max-new-tokens", "2")
    assert code == 0 and out.startswith(prompt)
    assert err.count("warning: the text ends in a space") == err.count("\n") == warned


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("limit", ["--max-length", "--max-new-tokens"])
def test_no_room_for_a_token_is_warned_of_once(run, limit, how):
    words = ["girl dog", "--num-samples", "3", *how]
    code, out, err = run(*words, limit, "1" if limit == "--max-length" else "0")
    assert code == 0 and out.count("girl dog") == 3
    assert re.fullmatch(r"warning: nothing was added: the prompt has \d+ tokens .*\n", err)
    assert run(*words, limit, "30")[2] == ""


def test_top_k_is_switched_off_by_the_word_none(run):
    words = ["The dog", "--max-new-tokens", "20", "--seed", "1", "--top-k"]
    assert run(*words, "None") == run(*words, "300")  # as many as there are
    assert run(*words, "None") != run(*words, "2")


def test_rows_wait_for_their_turn():
    def done(row):
        return Completion(
            prompt="", text="", prompt_ids=[0], ids=[], logprobs=[], finish_reason="stop",
            sample=row, seed=1,
        )  # fmt: skip

    taken = []

    def source():
        for delta in [
            Delta(0, "a"), Delta(1, "x"), Delta(2, "p"), Delta(2, "q", done(2)), Delta(0, "b"),
            Delta(1, "y"), Delta(0, "c", done(0)), Delta(1, "z", done(1)),
        ]:  # fmt: skip
            taken.append(delta.text)
            yield delta

    seen = []
    for row, pieces in enumerate(command.in_turn(source(), 3)):
        for delta in pieces:
            assert delta.row == row
            seen.append((delta.text, len(taken)))
    # The first row is printed as it grows; what others said meanwhile follows, as soon as it can.
    assert seen == [
        ("a", 1), ("b", 5), ("c", 7), ("x", 7), ("y", 7), ("z", 8), ("p", 8), ("q", 8),
    ]  # fmt: skip


# ---- mistakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a", "--top-k", "0"], 1, "top_k is 0; it must be at least 1"),
        (["a", "--top-k", "0"], 1, "or None (`--top-k None`) to allow every token"),
        (["a", "--num-samples", "100000000"], 1, "is 100000000 texts, and at most 4096 at once"),
        (["a", "--top-p", "1.5"], 1, "top_p is 1.5; it must lie in (0, 1]"),
        (["a", "--temperature", "-1"], 1, "temperature is -1.0; it must be a number from 0 on"),
        (["a", "--temperature", "nan"], 1, "temperature is nan"),
        (["a", "--num-samples", "0"], 1, "num_samples is 0; it must be at least 1"),
        (["a", "--stop", ""], 1, "a stop string is empty"),
        (["!?" * 100], 1, "the prompt has 200 tokens and the model's context holds 64"),
        (["a", "--device", "abacus"], 1, "no device 'abacus' on this machine"),
        (["a", "--dtype", "float31"], 1, "no data type 'float31'"),
        (["a", "--temperature", "hot"], 2, "hot"),
        (["a", "--top-q", "3"], 2, "--top-q"),
        (["a", "--past-context", "wrap"], 2, "wrap"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(run, words, code, message):
    got, out, err = run(*words)
    assert (got, out) == (code, "")
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_an_unknown_model_is_one_line(capsys):
    assert cli.main(["generate", "a", "--model", "stroy"]) == 1
    err = capsys.readouterr().err
    assert "Did you mean 'story'?" in err and err.count("\n") == 1


# ---- in a process of its own --------------------------------------------------------------


def test_the_prompt_may_come_from_standard_input(folder):
    words = ["--model", folder, "--max-new-tokens", "6", "--seed", "1"]
    piped = run_cli("generate", *words, input="é girl\n")
    assert (piped.returncode, piped.stderr) == (0, "")
    assert piped.stdout == run_cli("generate", "é girl", *words).stdout
    assert piped.stdout.startswith("é girl")


def test_an_error_leaves_standard_output_empty(folder):
    result = run_cli("generate", "a", "--model", folder, "--top-k", "-1")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr


@terminal_only
def test_a_reader_that_goes_away_ends_it_quietly(folder):
    pipe = subprocess.PIPE
    words = ["a", "--model", folder, "--num-samples", "2", *ENDLESS]
    with start(*words, stdout=pipe, stderr=pipe) as process:
        assert process.stdout.readline() == b"--- 1 of 2 ---\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.fixture
def at_terminal(folder):
    """Start the command at a pseudo-terminal; returns the process and a reader of what it shows."""
    import pty

    ours, theirs = pty.openpty()
    processes = []

    def read():
        try:
            return os.read(ours, 65536)
        except OSError:  # Linux's word for an end of file here
            return b""

    def begin(*words, **env):
        process = start(
            *words, "--model", folder, stdin=theirs, stdout=theirs, stderr=theirs, env=env
        )
        processes.append(process)
        os.close(theirs)
        return process, read

    yield begin
    os.close(ours)
    for process in processes:
        process.kill()
        process.wait()


@terminal_only
def test_text_streams_to_a_terminal_and_ctrl_c_ends_it(at_terminal):
    process, read = at_terminal("The dog", *ENDLESS, NO_COLOR="1")
    shown, parts = b"", 0
    while len(shown) < 60:
        shown, parts = shown + read(), parts + 1
    assert process.poll() is None and parts > 3  # text came while the process was at work
    process.send_signal(signal.SIGINT)
    while part := read():
        shown += part
    assert process.wait() == 130  # its million tokens would outlast every test's time limit
    text = shown.decode(errors="replace").replace("\r\n", "\n")
    assert text.startswith("The dog") and "\x1b" not in text
    assert text.endswith("\nstopped\n") and "Traceback" not in text


@terminal_only
@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_gets_a_summary_and_colour_if_it_wants_it(at_terminal, colour):
    process, read = at_terminal(
        "The dog",
        "--max-new-tokens",
        "5",
        "--seed",
        "7",
        NO_COLOR="" if colour else "1",
        TERM="xterm",
    )
    shown = b""
    while part := read():
        shown += part
    assert process.wait(30) == 0
    text = shown.decode().replace("\r\n", "\n")
    assert ("\x1b[1mThe dog\x1b[0m" in text) == colour and ("\x1b" in text) == colour
    assert re.search(r"5 tokens.* a second.*length.*--seed 7", text)
