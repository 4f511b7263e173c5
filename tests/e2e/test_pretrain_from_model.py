"""Going on with the weights of a model, on text of one's own."""

import json
import shutil

import pytest

from cleangpt2.cli.main import main
from cleangpt2.data.batches import Batches, pack
from cleangpt2.model.pretrained import load
from cleangpt2.texts import read_all
from cleangpt2.training.step import summed_loss
from tests.helpers import require

TEXT = "Once upon a time there was a cat. It sat on a mat, and a dog sat on a log. The end. " * 12
WORDS = (
    "pretrain", "mine.txt", "--from-model", "tiny", "--steps", "6", "--save-every", "3",
    "--batch-size", "2", "--context", "32", "--device", "cpu", "--warmup", "2",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has written all that it can write."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine.txt").write_text(TEXT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main((*WORDS, "--out", "run", "--export-every", "4")) == 0
    return folder / "run"


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_first_loss_is_that_of_the_model(run):
    model, tokenizer = load("tiny", device="cpu")
    tokens = pack(read_all([run.parent / "mine.txt"]), tokenizer)
    inputs, targets = Batches(tokens, B=2, T=32, seed=1)(0)
    expected = summed_loss(model, inputs, targets).item() / targets.numel()
    first = rows(run / "metrics.jsonl")[0]["loss"]
    assert first == pytest.approx(expected, rel=1e-6)
    assert rows(run / "metrics.jsonl")[-1]["loss"] < first


def test_the_model_keeps_its_shape_and_vocabulary(run):
    (before, tokenizer), (after, same) = load("tiny", device="cpu"), load(run / "model")
    assert same.encode(TEXT) == tokenizer.encode(TEXT)
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (before, after)]
    assert shapes[0] == shapes[1]


def test_the_lineage_names_the_model_it_began_with(run):
    for folder in (run / "model", run / "exports/step-0000004"):
        lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
        assert (lineage["made_by"], lineage["parent"]["name"]) == ("pretrain", "tiny")
        assert "model.safetensors" in lineage["parent"]["files"]
        assert list(lineage["data"]) == ["mine.txt"]
    assert "Made from the model tiny." in (run / "report.html").read_text(encoding="utf-8")


def test_an_export_is_a_model_that_generates(run, capsys):
    folder = run / "exports/step-0000004"
    assert sorted(path.name for path in run.glob("exports/*")) == [folder.name]
    words = ("--model", str(folder), "--max-new-tokens", "5", "--json", "--device", "cpu")
    assert main(("generate", "Once upon", *words)) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "Once upon"


def test_it_goes_on_where_it_stopped(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(run.parent / "mine.txt", tmp_path)
    shutil.rmtree(tmp_path / "run/checkpoints/step-0000006")
    shutil.rmtree(tmp_path / "run/model")
    monkeypatch.chdir(tmp_path)
    assert main((*WORDS, "--out", "run", "--export-every", "4")) == 0
    for name in ("model/model.safetensors", "metrics.jsonl", "config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()


def test_tensorboard_reads_what_the_command_writes(run, tmp_path, monkeypatch):
    module = require("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(run.parent)
    out = str(tmp_path / "run")
    assert main((*WORDS, "--out", out, "--tensorboard")) == 0
    events = module.EventAccumulator(f"{out}/tensorboard")
    events.Reload()
    logged = [row["loss"] for row in rows(run / "metrics.jsonl") if "loss" in row]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged)
