"""``cleangpt2 compare`` in a terminal, in a pipe and as a page."""

import io
import json
import re
import sys

import pytest

from cleangpt2.cli import main as cli
from cleangpt2.cli import side_by_side
from cleangpt2.model.adapter_files import save_adapter
from cleangpt2.model.lora import add_adapter
from cleangpt2.model.lora_config import LoraConfig
from cleangpt2.model.pretrained import save
from cleangpt2.tokenizer.chat import load_template
from tests.report.reading import Page
from tests.stubs import random_model, small_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path, tokenizer = tmp_path_factory.mktemp("models"), small_tokenizer()
    save(random_model(tokenizer.vocab_size), tokenizer, path / "a")
    save(random_model(tokenizer.vocab_size, seed=9), tokenizer, path / "b")
    taught = load_template("plain", tokenizer).tokenizer
    save(random_model(taught.vocab_size, seed=9), taught, path / "taught")
    more = tokenizer.add_special_tokens("<|x|>")
    save(random_model(more.vocab_size), more, path / "more")
    adapted = random_model(tokenizer.vocab_size)
    add_adapter(adapted, LoraConfig(r=2))
    save_adapter(adapted, path / "adapter", base=str(path / "a"))
    return path


@pytest.fixture
def run(folders, capsys, monkeypatch):
    """Run the command in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def run(models, *words):
        paths = [str(folders / model) for model in models]
        code = cli.main(["compare", *paths, "--seed", "1", "--max-new-tokens", "9", *words])
        return code, *capsys.readouterr()

    return run


def found(out):
    return [json.loads(line) for line in out.splitlines()]


def test_the_same_model_twice_gives_two_equal_columns(run):
    code, out, err = run(["a", "a"], "--prompt", "The dog")
    assert (code, err) == (0, "")
    columns = out.split("\n\n")[0].splitlines()[2:]
    assert columns and all(line[:38].rstrip() == line[41:].rstrip() for line in columns)
    assert re.search(r"^sum, nats .* \+0\.00 +0\.0000$", out, re.MULTILINE)


def test_an_adapter_folder_is_a_model(run):
    [comparison] = found(run(["a", "adapter"], "--prompt", "The dog", "--json")[1])
    first, second = comparison["answers"]
    assert first == second and set(first["kl"][1]) == {0.0}


def test_three_models_have_three_columns_and_tables(run):
    code, out, _ = run(["a", "b", "a"], "--prompt", "The dog")
    assert code == 0
    assert [f"{x}'s answer" in out for x in "ABCD"] == [True, True, True, False]
    head = next(line for line in out.splitlines() if line.startswith("A's answer"))
    assert head.split()[2:] == ["A", "B", "C", "B/A", "C/A", "KL(A|B)", "KL(A|C)"]


def test_a_seed_gives_the_same_again(run):
    assert run(["a", "b"]) == run(["a", "b"])
    assert run(["a", "b"]) != run(["a", "b"], "--seed", "2")


def test_prompts_come_from_flags_and_from_a_file(run, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("The girl\n\nA dog\n", encoding="utf-8")
    words = ["--prompt", "The dog", "--prompts", str(file), "--json"]
    asked = [comparison["prompt"] for comparison in found(run(["a", "b"], *words)[1])]
    assert asked == ["The dog", "The girl", "A dog"]


def test_the_template_of_the_first_model_that_has_one_lays_out_the_prompts(run):
    words = ["--prompt", "The dog", "--json", "--template", "alpaca"]
    raw, own = (
        found(run(["a", "taught"], *w)[1])[0]["prompt"]
        for w in (["--prompt", "The dog", "--json", "--raw"], ["--prompt", "The dog", "--json"])
    )
    assert (raw, own) == ("The dog", "The dog")  # "plain" adds nothing
    code, _, err = run(["a", "taught"], *words)
    assert code == 1 and "context" in err and err.count("\n") == 1


def test_the_page_is_whole_and_asks_for_nothing(run, tmp_path):
    file = tmp_path / "pages" / "compared.html"
    code, out, _ = run(["a", "b"], "--prompt", "<script>", "--out", str(file))
    assert code == 0 and out.endswith(f"{file}\n")
    html = file.read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags and "http" not in html.replace("http-equiv", "")
    assert "seed 1, temperature 0.8, top-k 50; no template" in page.text


@pytest.mark.parametrize(
    ("models", "words", "says"),
    [
        (["a", "more"], [], "different vocabularies (300 tokens and 301)"),
        (["a"], [], "1 models to compare: name 2 to 4"),
        (["a", "b"], ["--raw", "--template", "plain"], "contradict each other"),
        (["a", "b"], ["--template", "chatml"], "needs tokens that these models do not know"),
        (["a", "b"], ["--prompts", "nowhere.txt"], "cannot read the prompts in nowhere.txt"),
        (["a", "b"], ["--out", "."], "is a folder: name a file in it"),
    ],
)
def test_a_mistake_costs_one_line(run, models, words, says):
    code, _, err = run(models, *words)
    assert code == 1 and err.count("\n") == 1 and says in err


def test_colour_takes_the_place_of_the_table_and_changes_no_column(run, monkeypatch):
    plain = run(["a", "b"], "--prompt", "The dog")[1]
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = run(["a", "b"], "--prompt", "The dog")[1]
    assert "sum, nats" not in coloured and "\x1b[38;5;16;48;5;" in coloured
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)

    def columns(text):
        return [line.rstrip() for line in text.split("\n\n")[0].splitlines()]

    assert columns(stripped) == columns(plain)
    assert "sum, nats" in run(["a", "b"], "--tokens")[1]


def test_lines_are_never_wider_than_their_column():
    tokens = [" a", "\u6771\u4eac\u6771\u4eac", "\n\n", "x" * 30, "e\u0301", "\t"]
    lines = side_by_side.wrapped(tokens, [0.0] * len(tokens), 7)
    assert max(sum(side_by_side.cells(text) for text, _ in line) for line in lines) <= 7
    joined = "".join(text for line in lines for text, _ in line)
    assert joined == "".join(tokens).replace("\n", "↵").replace("\t", " ")
