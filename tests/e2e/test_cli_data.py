"""From text to shards to a model, with the command line alone."""

import json

import pytest

from tests.helpers import run_cli

LINES = [f"the cat sat on mat number {n} and the dog sat on the log. " * 4 for n in range(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows = "".join(json.dumps({"text": line}) + "\n" for line in LINES)
    (folder / "corpus.jsonl").write_text(rows + "{broken\n", encoding="utf-8")
    done = run_cli(
        "tokenizer", "train", "words.txt", "--vocab-size", "270", "--out", "vocabulary",
        cwd=_with_words(folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def _with_words(folder):
    (folder / "words.txt").write_text(LINES[0], encoding="utf-8")
    return folder


def data_prepare(folder, *words, **options):
    return run_cli("data", "prepare", *words, "--tokenizer", "vocabulary", cwd=folder, **options)


def pretrain(folder, *words):
    shape = ("--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--n-positions", "32")
    small = ("--batch-size", "2", "--context", "32", "--steps", "6", "--device", "cpu")
    return run_cli("pretrain", *shape, *small, *words, cwd=folder)


def test_a_model_is_trained_from_shards(folder):
    done = data_prepare(folder, "corpus.jsonl", "--out", "shards", "--validation", "0.1")
    assert done.returncode == 0, done.stderr
    assert "warning: corpus.jsonl, line 201, is not JSON" in done.stderr
    assert "1 bad line" in done.stdout
    index = json.loads((folder / "shards/index.json").read_text("utf-8"))
    assert [source["documents"] for source in index["sources"]] == [200]

    trained = pretrain(folder, "shards", "--out", "run", "--eval-every", "3")
    assert trained.returncode == 0, trained.stderr
    assert "bits per byte" in trained.stderr  # measured on the folder's own validation split
    text = run_cli("generate", "the cat", "--model", "run/model", "--json", cwd=folder)
    assert json.loads(text.stdout)["prompt"] == "the cat"

    again = data_prepare(
        folder, "corpus.jsonl", "--out", "shards", "--validation", "0.1", "--verify"
    )
    assert again.returncode == 0, again.stderr
    assert "shards is finished; nothing was left to do" in again.stdout
    assert "all checksums are right" in again.stdout
    other = data_prepare(folder, "corpus.jsonl", "--out", "shards", "--validation", "0.2")
    assert other.returncode == 1
    assert "validation was 0.1, now 0.2" in other.stderr


def test_shards_train_the_same_model_as_the_text(folder):
    (folder / "good.jsonl").write_text(
        "".join(json.dumps({"text": line}) + "\n" for line in LINES[:50]), encoding="utf-8"
    )
    done = data_prepare(
        folder, "good.jsonl", "--out", "good", "--validation", "0", "--shard-tokens", "1000"
    )
    assert done.returncode == 0, done.stderr
    assert pretrain(folder, "good", "--out", "from-shards").returncode == 0
    text = pretrain(folder, "good.jsonl", "--tokenizer", "vocabulary", "--out", "from-text")
    assert text.returncode == 0, text.stderr
    logs = [(folder / run / "metrics.jsonl").read_text() for run in ("from-shards", "from-text")]
    assert logs[0] == logs[1]


def test_text_is_piped_in_and_separators_may_be_escaped(folder):
    done = data_prepare(
        folder, "-", "--out", "piped", "--separator", r"\n\n", "--validation", "0",
        input="one\n\ntwo\n\nthree",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    index = json.loads((folder / "piped/index.json").read_text("utf-8"))
    assert index["sources"][0]["documents"] == 3
    assert index["settings"]["separator"] == "\n\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no files to prepare"),
        (("none.txt",), "none.txt cannot be read"),
        (("words.txt", "--workers", "0"), "workers is 0"),
        (("words.txt", "--validation", "2"), "validation is 2.0"),
        (("corpus.jsonl", "--strict"), "corpus.jsonl, line 201, is not JSON"),
        (("hf:owner",), "write hf:owner/name"),
    ],
)
def test_a_mistake_costs_one_line(folder, words, message):
    failed = data_prepare(folder, *words, "--out", "never")
    assert failed.returncode in (1, 2)
    (line,) = failed.stderr.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert not (folder / "never/index.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("shards", "words.txt"), "name one prepared folder alone"),
        (("shards", "--tokenizer", "story"), "not of this tokenizer"),
        (("shards", "--batch-size", "9999"), "tokens are too few"),
    ],
)
def test_a_prepared_folder_that_does_not_fit_is_refused(folder, words, message):
    if not (folder / "shards").exists():
        data_prepare(folder, "corpus.jsonl", "--out", "shards", "--validation", "0.1")
    failed = pretrain(folder, *words, "--out", "no-run")
    assert failed.returncode == 1
    assert message in failed.stderr
    assert not (folder / "no-run").exists()
