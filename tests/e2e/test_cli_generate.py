"""``cleangpt2 generate`` as a person at a terminal meets it, and as a pipe does."""

import io
import json
import math
import os
import re
import signal
import subprocess
import sys

import pytest

from cleangpt2.cli import main as cli
from cleangpt2.cli import printing, probabilities, terminal
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


# Without the least number the end-of-text token would end it some day.
ENDLESS = ["--max-new-tokens", "1000000", "--min-new-tokens", "1000000"]
ENDLESS += ["--past-context", "slide", "--seed", "1"]


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
        assert row.keys() == {*Completion.__dataclass_fields__, "tokens"}
        assert row["prompt"] == "girl" and len(row["ids"]) == len(row["logprobs"])
        assert row["tokens"] == [small_tokenizer().decode([id]) for id in row["ids"]]
        assert row["top_logprobs"] is None


def test_json_names_the_alternatives_before_and_after_the_filters(run):
    out = run("girl", "--json", "--top-logprobs", "3", "--top-k", "2", "--max-new-tokens", "4")[1]
    assert "Infinity" not in out  # which is no JSON
    row = json.loads(out)
    assert [len(tops) for tops in row["top_logprobs"]] == [3] * len(row["ids"])
    assert [len(tops) for tops in row["top_filtered_logprobs"]] == [2] * len(row["ids"])
    for tops in row["top_logprobs"] + row["top_filtered_logprobs"]:
        for other in tops:
            assert other["text"] == small_tokenizer().decode([other["id"]])
            assert other["logprob"] <= 0


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
    assert err.count("leave the space off, or add --heal") == warned
    assert run(prompt, "--max-new-tokens", "2", "--heal")[2] == ""


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
    for row, pieces in enumerate(printing.in_turn(source(), 3)):
        for delta in pieces:
            assert delta.row == row
            seen.append((delta.text, len(taken)))
    # The first row is printed as it grows; what others said meanwhile follows, as soon as it can.
    assert seen == [
        ("a", 1), ("b", 5), ("c", 7), ("x", 7), ("y", 7), ("z", 8), ("p", 8), ("q", 8),
    ]  # fmt: skip


# ---- words --------------------------------------------------------------------------------


def test_a_healed_text_joins_its_prompt(run):
    words = ["Once upon a ti", "--heal", "--max-new-tokens", "12", "--seed", "1"]
    row = json.loads(run(*words, "--json")[1])
    assert run(*words)[1] == f"Once upon a ti{row['text']}\n"
    said = small_tokenizer().decode_bytes(row["prompt_ids"] + row["ids"])
    assert said.startswith(b"Once upon a ti")
    assert said[len("Once upon a ti") :].decode(errors="replace") == row["text"]
    assert row["prompt_ids"] != json.loads(run(words[0], "--json")[1])["prompt_ids"]


def test_bans_biases_and_beginnings(run):
    words = ["The dog", "--max-new-tokens", "30", "--num-samples", "5", "--seed", "1", "--json"]
    words += ["--bias", "e=9", "--bias", "o=9"]
    texts = [json.loads(line)["text"] for line in run(*words)[1].splitlines()]
    assert all("oe" in text for text in texts) and any("ee" in text for text in texts)
    barred = run(*words, "--ban", "oe", "--ban", "ee", "--start", " was")[1]
    for text in (json.loads(line)["text"] for line in barred.splitlines()):
        assert text.startswith(" was")
        assert "oe" not in text and "ee" not in text


# ---- probabilities ------------------------------------------------------------------------


def test_probabilities_in_a_pipe_are_a_table(run):
    words = ["The dog", "--max-new-tokens", "5", "--seed", "1", "--top-logprobs", "2"]
    code, out, err = run(*words, "--show-probs")
    row = json.loads(run(*words, "--json")[1])
    assert (code, err) == (0, "") and "\x1b" not in out
    text, table = out.split("\n\ntoken ")
    assert text.startswith("The dog")
    head, *lines = table.splitlines()
    assert head.split() == ["model", "drawn", "likeliest"]
    assert len(lines) == 5
    for n, line in enumerate(lines):
        shown = [f"{math.exp(p):.3f}" for p in (row["logprobs"][n], row["filtered_logprobs"][n])]
        for _, logprob in [(0, row["logprobs"][n])] + [
            (top["id"], top["logprob"]) for top in row["top_logprobs"][n]
        ]:
            assert f"{math.exp(logprob):.3f}" in line or "<0.001" in line
        assert re.search(rf" +{shown[0]} +{shown[1]} ", line) or "<0.001" in line


def test_greedy_tokens_have_one_probability(run):
    out = run("The dog", "--max-new-tokens", "3", "--temperature", "0", "--show-probs")[1]
    assert re.search(r"^token +model$", out, flags=re.MULTILINE)


def test_probabilities_in_colour_are_the_text_on_grounds(run, monkeypatch):
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    words = ["The dog", "--max-new-tokens", "9", "--seed", "1"]
    out = run(*words, "--show-probs")[1]
    row = json.loads(run(*words, "--json")[1])
    shown, legend = out.rsplit("\n\n", 1)
    colours = [int(n) for n in re.findall(r"48;5;(\d+)m", shown)]
    lines = [token.count("\n") for token in row["tokens"]]
    assert sum(lines) == 0  # a line end would divide a ground
    assert colours == [probabilities.bucket(math.exp(p)).colour for p in row["logprobs"]]
    for bucket in probabilities.BUCKETS:
        assert f"48;5;{bucket.colour}m {bucket.least:g} to" in legend
    assert "\x1b[1mThe dog\x1b[0m" in shown and "token" not in shown


def test_every_ground_is_light_enough_for_black_text():
    def light(colour):
        """Relative luminance of the 6 x 6 x 6 cube (WCAG 2)."""
        parts = [(0, 95, 135, 175, 215, 255)[(colour - 16) // n % 6] / 255 for n in (36, 6, 1)]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    contrasts = [(light(bucket.colour) + 0.05) / 0.05 for bucket in probabilities.BUCKETS]
    assert min(contrasts) > 7  # WCAG's AAA
    assert contrasts == sorted(contrasts, reverse=True)  # told apart without colour vision


def test_parts_of_a_character_show_as_their_bytes_and_line_ends_as_signs(monkeypatch):
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    tokenizer = small_tokenizer()
    ids = [*tokenizer.encode("é"), *tokenizer.encode("\n")]
    completion = Completion(
        prompt="", text="é\n", prompt_ids=[tokenizer.eos_id], ids=ids, logprobs=[-0.1] * len(ids),
        finish_reason="length", sample=0, seed=1,
    )  # fmt: skip
    assert len(ids) == 3
    shown = re.sub(r"\x1b\[[\d;]*m", "", probabilities.coloured(completion, tokenizer))
    assert shown == "<C3><A9>↵\n"
    names = [line.split()[0] for line in probabilities.table(completion, tokenizer)]
    assert names == ["token", "'<C3>'", "'<A9>'", r"'\n'"]


# ---- searches -----------------------------------------------------------------------------


def test_beams_come_best_first(run):
    words = ["The dog", "--num-beams", "5", "--max-new-tokens", "8", "--no-repeat-ngram", "2"]
    code, out, err = run(*words, "--num-return", "3")
    assert (code, err) == (0, "")
    parts = re.split(r"^--- (\d) of 3 ---\n", out, flags=re.MULTILINE)
    rows = [json.loads(line) for line in run(*words, "--num-return", "3", "--json")[1].splitlines()]
    assert parts[2::2] == [f"The dog{row['text']}\n" for row in rows]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert run(*words)[1] == parts[2]  # one is the default
    longer = run(*words, "--length-penalty", "-5", "--early-stopping", "True", "--json")[1]
    assert json.loads(longer)["score"] != rows[0]["score"]


@pytest.mark.parametrize("search", [["--num-beams", "3"], ["--contrastive-alpha", "0.1"]])
def test_penalties_hold_in_a_search(run, search):
    words = ["If", *search, "--max-new-tokens", "5", "--bias", "e=30", "--json"]
    assert len(set(json.loads(run(*words)[1])["ids"])) == 1
    ids = json.loads(run(*words, "--no-repeat-ngram", "1")[1])["ids"]
    assert len(set(ids)) == len(ids) > 1


def test_diverse_beams_differ(run):
    words = ["If", "--num-beams", "4", "--num-return", "4", "--max-new-tokens", "6", "--json"]
    apart = ["--num-groups", "4", "--diversity-penalty", "50"]
    firsts = {json.loads(line)["ids"][0] for line in run(*words, *apart)[1].splitlines()}
    assert len(firsts) == 4


def test_contrastive_search_is_one_text(run):
    words = ["The dog", "--max-new-tokens", "8"]
    code, out, err = run(*words, "--contrastive-alpha", "0.6")
    assert (code, err) == (0, "") and out.startswith("The dog")
    greedy = run(*words, "--contrastive-alpha", "0.0")[1]
    assert greedy == run(*words, "--temperature", "0")[1]
    assert "token" in run(*words, "--contrastive-alpha", "0.6", "--show-probs")[1]


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
        (["a", "--num-beams", "4", "--num-samples", "2"], 1, "use --num-return"),
        (["a", "--num-beams", "4", "--temperature", "1"], 1, "--temperature is for drawing tokens"),
        (["a", "--num-beams", "4", "--stop", "x"], 1, "--stop is for drawing tokens"),
        (["a", "--num-beams", "4", "--max-length", "9"], 1, "--max-length is for drawing tokens"),
        (["a", "--num-beams", "4", "--contrastive-alpha", "0.5"], 1, "choose one"),
        (["a", "--contrastive-alpha", "0.5", "--top-p", "0.5"], 1, "--contrastive-alpha searches"),
        (["a", "--length-penalty", "2"], 1, "belongs to beam search: add --num-beams 4"),
        (["a", "--contrastive-k", "2"], 1, "search: add --contrastive-alpha 0.6"),
        (["a", "--num-beams", "2", "--num-return", "3"], 1, "num_return is 3 of 2 beams"),
        (["a", "--bias", "dog"], 1, "--bias 'dog' is not TEXT=NUMBER, as in ' dog=2.5'"),
        (["a", "--bias", "zq=1"], 1, "bias moves one token, and 'zq' is 2: 'z', 'q'"),
        (["a", "--ban", ""], 1, "a ban is empty"),
        (["a", "--heal", "--start", "b"], 1, "start and heal exclude each other"),
        (["a", "--json", "--show-probs"], 1, "choose one"),
        (["a", "--top-logprobs", "2"], 1, "--top-logprobs is shown by --show-probs and by --json"),
        (["a", "--banned", "5"], 2, "--banned"),
        (["The", "dog"], 2, "options: dog; a text of several words needs quotes"),
        (["a", "--temperature", "hot"], 2, "hot"),
        (["a", "--top-q", "3"], 2, "--top-q"),
        (["a", "--past-context", "wrap"], 2, "wrap"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(run, words, code, message):
    got, out, err = run(*words)
    assert (got, out) == (code, "")
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_help_has_no_holes_and_hides_what_takes_ids(capsys):
    assert cli.main(["generate", "--help"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"\n {15,}\S", out) and not re.search(r"\n *\n {15,}\S", out)
    assert "--top-k" in out and "--banned" not in out and "--logit-bias" not in out


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


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_last_line_end_of_a_pipe_is_no_prompt(run, monkeypatch, end):
    piped = io.TextIOWrapper(io.BytesIO(b"The dog" + end.encode()))
    monkeypatch.setattr("sys.stdin", piped)
    assert json.loads(run("--json", "--max-new-tokens", "1")[1])["prompt"] == "The dog"


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


@terminal_only
def test_a_terminal_gets_no_escape_sequence_from_a_text_and_a_pipe_gets_it_all(at_terminal, folder):
    evil = "\x1b]0;title\x07\x1b[2Jdog\r\x9b1m"
    process, read = at_terminal(evil, "--max-new-tokens", "1", "--seed", "1", NO_COLOR="1")
    shown = b""
    while part := read():
        shown += part
    assert process.wait(30) == 0
    text = shown.decode().replace("\r\n", "\n")
    assert text.startswith("␛]0;title␇␛[2Jdog␍\\x9b1m")
    assert not any(c in text for c in "\x1b\x07\x9b\r")
    piped = run_cli("generate", evil, "--model", folder, "--max-new-tokens", "1", "--seed", "1")
    assert piped.stdout.startswith(evil.replace("\r", "\n"))  # as Python reads a line end


def test_what_is_harmless_stays_as_it_is():
    class Terminal:
        def isatty(self):
            return True

    text = "".join(map(chr, [*range(32, 127), 9, 10, 0xE9, 0x1F642]))
    assert terminal.harmless(text, Terminal()) == text
    for code in {*range(32), *range(127, 160)} - {9, 10}:
        assert chr(code) not in terminal.harmless(f"a{chr(code)}b", Terminal())
