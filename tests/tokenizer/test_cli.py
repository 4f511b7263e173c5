"""`cleangpt2 tokenize` and `cleangpt2 tokenizer train`, as they are typed."""

import io
import json

import pytest

from cleangpt2.cli.main import main
from cleangpt2.tokenizer import Tokenizer
from tests.helpers import run_cli, run_python
from tests.tokenizer.conftest import TEXT


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    tokenizer.save(folder)
    return folder


@pytest.fixture
def run(folder, capsys):
    """Run a command in this process: its exit code, standard output and standard error."""

    def run(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


def test_tokenize_prints_the_text_its_ids_and_the_text_again(shared_data, run):  # S-29
    text = "A day without laughter is a day"
    assert run("tokenize", text, "--model", shared_data / "gpt2") == (
        0,
        "Reference text: A day without laughter is a day\n"
        "Tokenized sequence: [32, 1110, 1231, 20263, 318, 257, 1110]\n"
        "Reconstructed reference text: A day without laughter is a day\n",
        "",
    )


def test_tokenize_colours_the_pieces_where_colour_is_welcome(tokenizer, folder, run, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, out, _ = run("tokenize", "the fox ñ", "--model", folder)
    striped = out.splitlines()[3]
    assert striped.count("\x1b[0m") == len(tokenizer.encode("the fox ñ"))
    assert "<C3>" in striped
    assert "<B1>" in striped
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "".join(run("tokenize", "the fox", "--model", folder)[1:])


def test_tokenize_warns_of_a_space_at_the_end(folder, run):
    code, out, err = run("tokenize", "the fox ", "--model", folder)
    assert code == 0
    assert out.startswith("Reference text: the fox \n")
    assert "warning: the text ends in a space" in err
    assert run("tokenize", "the fox", "--model", folder)[2] == ""


def test_tokenize_json_is_one_object_with_every_piece(tokenizer, folder, run):
    code, out, _ = run("tokenize", "fox ñ<|pad|>", "--json", "--model", folder)
    answer = json.loads(out)
    assert code == 0
    assert answer["text"] == answer["decoded"] == "fox ñ<|pad|>"
    assert answer["ids"] == tokenizer.encode("fox ñ<|pad|>")
    assert [piece["id"] for piece in answer["pieces"]] == answer["ids"]
    assert bytes.fromhex("".join(p["bytes"] for p in answer["pieces"])) == "fox ñ<|pad|>".encode()


def test_tokenize_allows_special_tokens_by_name(tokenizer, folder, run):
    words = ("tokenize", "fox<|pad|>", "--json", "--model", folder)
    _, out, _ = run(*words, "--allow-special", "<|pad|>")
    assert json.loads(out)["ids"] == [*tokenizer.encode("fox"), tokenizer.pad_id]
    code, _, err = run(*words, "--allow-special", "<|pda|>")
    assert (code, err.count("\n")) == (1, 1)
    assert "Did you mean '<|pad|>'" in err


def test_tokenize_reads_standard_input_less_its_last_newline(tokenizer, folder):
    done = run_cli("tokenize", "--json", "--model", str(folder), input="the fox\n\n")
    assert json.loads(done.stdout)["ids"] == tokenizer.encode("the fox\n")


def test_standard_input_that_is_not_utf8_is_refused_with_the_place(folder, run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9 fox"), "utf-8"))
    code, out, err = run("tokenize", "--model", folder)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "byte 3 is 0xe9" in err
    assert "iconv" in err
    monkeypatch.setattr("sys.stdin", io.StringIO("the fox\n"))  # a stand-in has no bytes
    assert run("tokenize", "--model", folder)[1].startswith("Reference text: the fox\nTok")


def test_tokenize_at_a_terminal_asks_for_a_text(folder, run, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    code, out, err = run("tokenize", "--model", folder)
    assert (code, out) == (1, "")
    assert err.startswith("error: no text: ")


def test_pitfalls_show_what_spaces_capitals_and_digits_do(shared_data, run):  # S-35
    _, out, _ = run("tokenize", "--pitfalls", "--model", shared_data / "gpt2")
    for line in ("'i ' [72, 220]", "' Michael' [3899]", "'michael' [76, 40302]", "'56873+3184623="):
        assert line in " ".join(out.split())
    _, out, _ = run("tokenize", "--pitfalls", "--json", "--model", shared_data / "gpt2")
    assert json.loads(out)["i "] == [72, 220]


def test_vocab_stats_tell_how_many_merges_start_with_a_space(shared_data, run):  # S-33
    _, out, _ = run("tokenize", "--vocab-stats", "--model", shared_data / "gpt2")
    assert "66.3% of the merges start with a space" in out
    assert "50,257 tokens: 256 bytes, 50,000 merges, 1 special" in out
    _, out, _ = run("tokenize", "--vocab-stats", "--json", "--model", shared_data / "gpt2")
    assert json.loads(out)["merges_starting_with_a_space"] == 0.6627


def test_tokenize_and_its_help_import_no_torch(folder):
    for words in (["tokenize", "--help"], ["tokenize", "fox", "--model", str(folder)]):
        code = f"""
import sys
from cleangpt2.cli.main import main
assert main({words!r}) == 0
assert "torch" not in sys.modules and "gigatoken" not in sys.modules
"""
        done = run_python("-c", code)
        assert done.returncode == 0, done.stderr


# ---- tokenizer train ----------------------------------------------------------------------


@pytest.fixture
def stories(tmp_path):
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"text": TEXT}) + "\n" for _ in range(3)), encoding="utf-8")
    return path


def test_train_saves_a_vocabulary_and_sums_up(stories, tmp_path, run):
    out_folder = tmp_path / "new" / "vocabulary"
    words = ["tokenizer", "train", stories, "--vocab-size", 300, "--out", out_folder]
    code, out, _ = run(*words)
    tok = Tokenizer.from_pretrained(out_folder)
    n_tokens = len(tok.encode(TEXT))
    assert code == 0
    assert tok.vocab_size == 300
    assert "300 tokens: 256 bytes, 43 merges, 1 special" in out
    assert "of the merges start with a space" in out
    assert "longest tokens: " in out
    assert f"{len(TEXT.encode()) / n_tokens:.2f} bytes per token" in out

    code, _, err = run(*words)
    assert code == 1
    assert "holds a vocabulary; choose another folder or add --overwrite" in err
    assert run(*words, "--overwrite")[0] == 0


def test_train_takes_several_files_and_special_tokens(stories, tmp_path, run):
    (tmp_path / "more.txt").write_text("foxes and more foxes", encoding="utf-8")
    special = ["<|endoftext|>", "<|pad|>"]
    words = [stories, tmp_path / "more.txt", "--vocab-size", 290, "--out", tmp_path / "v"]
    assert run("tokenizer", "train", *words, "--special-tokens", *special)[0] == 0
    tok = Tokenizer.from_pretrained(tmp_path / "v")
    assert tok.special_tokens == {"<|endoftext|>": 288, "<|pad|>": 289}
    expected = Tokenizer.train([TEXT] * 3 + ["foxes and more foxes"], 290, tuple(special))
    assert tok.vocabulary.merges == expected.vocabulary.merges


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--vocab-size", "256"], "vocab_size 256 is too small"),
        (["--vocab-size", "-5"], "vocab_size -5 is too small"),
        (["--vocab-size", "9999"], "vocab_size 9999 is too large"),
        (["--special-tokens", "a"], "'a' is an ordinary token"),
    ],
)
def test_train_refuses_and_leaves_nothing(stories, tmp_path, run, words, complaint):
    code, out, err = run("tokenizer", "train", stories, "--out", tmp_path / "v", *words)
    assert (code, out) == (1, "")
    assert complaint in err.splitlines()[-1]
    assert not (tmp_path / "v").exists()


def test_train_without_files_says_what_to_give(tmp_path, run):
    code, out, err = run("tokenizer", "train", "--out", tmp_path / "v")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no files to learn from: give text or .jsonl files" in err


def test_train_refuses_files_without_text(tmp_path, run):
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    for file, complaint in (("empty.txt", "no text in"), ("none.txt", "cannot be read")):
        code, _, err = run("tokenizer", "train", tmp_path / file, "--out", tmp_path / "v")
        assert code == 1
        assert complaint in err
        assert not (tmp_path / "v").exists()


def test_train_refuses_an_output_it_cannot_write_before_the_work(stories, tmp_path, run):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for out_folder in (tmp_path / "file", tmp_path / "file" / "below"):
        code, _, err = run("tokenizer", "train", stories, "--out", out_folder)
        assert (code, err.count("\n")) == (1, 1)  # not even the line that counts the texts
        assert "cannot write" in err
