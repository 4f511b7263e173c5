import hashlib
import json

import pytest

from tests.helpers import run_cli

TEXT = "the cat sat on the mat and the dog sat on the log. " * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, a vocabulary and a run, all made with the command line."""
    folder = tmp_path_factory.mktemp("pretrain")
    (folder / "corpus.txt").write_text(TEXT, encoding="utf-8")
    vocabulary = run_cli(
        "tokenizer", "train", "corpus.txt", "--vocab-size", "270", "--out", "vocabulary", cwd=folder
    )
    assert vocabulary.returncode == 0, vocabulary.stderr
    return folder


def pretrain(folder, *flags):
    shape = ("--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--n-positions", "32")
    small = ("--batch-size", "2", "--context", "32", "--save-every", "5", "--device", "cpu")
    return run_cli(
        "pretrain", "corpus.txt", "--tokenizer", "vocabulary", *shape, *small, *flags, cwd=folder
    )


def test_from_text_to_a_model_that_generates(folder):
    done = pretrain(folder, "--out", "run", "--steps", "10", "--validation", "corpus.txt")
    assert done.returncode == 0, done.stderr
    assert "--model run/model" in done.stdout.replace("\\", "/")
    assert "step 10/10" in done.stderr
    report = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "tokens (10 steps) in" in report and "bits per byte on held-out text" in report
    samples = (folder / "run" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in samples] == [9, 9, 9]  # three of the last step
    text = run_cli("generate", "the cat", "--model", "run/model", "--json", cwd=folder)
    assert json.loads(text.stdout)["prompt"] == "the cat"
    lineage = json.loads((folder / "run" / "model" / "lineage.json").read_text(encoding="utf-8"))
    assert lineage["made_by"] == "pretrain"
    digest = hashlib.sha256(TEXT.encode()).hexdigest()
    assert lineage["data"] == {"corpus.txt": {"bytes": len(TEXT), "sha256": digest}}

    again = pretrain(folder, "--out", "run", "--steps", "10")
    assert again.returncode == 1
    assert "finished after 10 steps" in again.stderr
    assert pretrain(folder, "--out", "run", "--steps", "5", "--fresh").returncode == 0


def test_settings_come_from_a_file_and_flags_win(folder):
    (folder / "run.toml").write_text('out = "from_file"\nsteps = 2\nlr = 0.01\n')
    done = pretrain(folder, "--config", "run.toml", "--steps", "3")
    assert done.returncode == 0, done.stderr
    saved = json.loads((folder / "from_file/config.json").read_text())["training"]
    assert (saved["steps"], saved["lr"]) == (3, 0.01)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--schedule", "linear"), "linear"),
        (("--batch-size", "1000"), "are too few for batches of 1000 x 32"),
        (("--device", "gpu"), "no device 'gpu'"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_no_folder(folder, flags, message):
    failed = pretrain(folder, "--out", "never", *flags)
    assert failed.returncode in (1, 2)
    (line,) = failed.stderr.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert not (folder / "never").exists()


def test_every_way_of_training_is_a_flag(folder):
    flags = ("--out", "ways", "--steps", "6", "--validation", "corpus.txt", "--eval-every", "2")
    ways = ("--schedule", "cosine", "--final-lr", "0.1", "--precision", "bf16", "--recompute")
    keeping = ("--micro-batches", "2", "--keep", "1", "--keep-best", "--background-saves")
    limits = ("--patience", "3", "--spike", "None", "--max-skips", "2", "--sample-every", "3")
    done = pretrain(folder, *flags, *ways, *keeping, *limits)
    assert done.returncode == 0, done.stderr
    saved = json.loads((folder / "ways/config.json").read_text())["training"]
    assert saved["spike"] is None and saved["keep_best"] and saved["schedule"] == "cosine"
    lines = (folder / "ways/samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 2, 2, 5, 5, 5]
