"""``cleangpt2 convert`` from another program's file to text."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from cleangpt2.cli import main as cli
from cleangpt2.model.config import GPT2Config
from cleangpt2.tokenizer import Tokenizer
from tests.helpers import run_cli
from tests.model.convert.writers import nanogpt_checkpoint, write_llmc, write_tensorflow
from tests.model.hard_weights import hard_model

CONFIG = GPT2Config(vocab_size=264, n_positions=32, n_embd=16, n_layer=2, n_head=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Checkpoints of three programs, and a vocabulary in a folder of its own."""
    place = tmp_path_factory.mktemp("convert")
    model = hard_model(CONFIG)
    Tokenizer.train(["low low low lower lowest"], vocab_size=261).save(place / "vocabulary")
    (place / "out").mkdir()
    torch.save(nanogpt_checkpoint(model), place / "out" / "ckpt.pt")
    write_llmc(place / "model.bin", model, version=5)
    write_tensorflow(place / "124M", model)
    return place


def test_from_nanogpt_to_text(place):
    done = run_cli("convert", "out/ckpt.pt", "nano", "--tokenizer", "vocabulary", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("nanoGPT checkpoint out/ckpt.pt: 28 tensors, 11,")
    assert lines[1].startswith("largest difference of the logits: 0, relative 0 (on 128 tokens")
    assert lines[2] == "the same model: every logit is equal, bit for bit"
    text = run_cli("generate", "low", "--model", "nano", "--max-new-tokens", "3", cwd=place)
    assert text.returncode == 0, text.stderr


def test_json_holds_the_measured_difference(place):
    flags = ("--dtype", "float16", "--tokenizer", "vocabulary", "--json")
    done = run_cli("convert", "124M", "half", *flags, cwd=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == "TensorFlow checkpoint"
    assert (found["dtype"], found["tokenizer"], found["tokens"]) == ("float16", 261, 128)
    assert found["difference"] == found["rounding"] > 0
    assert found["relative"] == pytest.approx(found["difference"] / found["largest"])


def test_without_a_tokenizer_the_weights_are_written_with_a_warning(place):
    done = run_cli("convert", "model.bin", "bare", cwd=place)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("warning: the folder gets no tokenizer: 'model.bin' brings no tokenizer")
    assert "stored as bfloat16" in done.stdout and "bit for bit" in done.stdout
    assert not (place / "bare" / "merges.txt").exists()
    failed = run_cli("convert", "model.bin", "bare", cwd=place)
    assert failed.returncode == 1 and "bare holds a model" in failed.stderr
    assert run_cli("convert", "model.bin", "bare", "--fresh", cwd=place).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing.pt", "to"), "no model 'nothing.pt'"),
        (("vocabulary/merges.txt", "to"), "is a file; give the folder it is in"),
        (("model.bin", "to", "--activation", "gelu"), "only a nanoGPT checkpoint leaves it open"),
        (("model.bin", "to", "--dtype", "int8"), "no data type 'int8'"),
        (("model.bin", "to", "--tokenizer", "story"), "they do not belong together"),
    ],
)
def test_a_mistake_costs_one_line_and_leaves_no_folder(place, words, message):
    failed = run_cli("convert", *words, cwd=place)
    assert failed.returncode == 1
    (line,) = failed.stderr.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert not (place / "to").exists()


def test_a_name_in_a_file_cannot_command_the_terminal(tmp_path, capsys, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()), encoding="utf-8")
    wrong = {f"h.{layer}.\x1b[2J": torch.zeros(2) for layer in range(CONFIG.n_layer)}
    save_file(wrong, tmp_path / "model.safetensors")
    tmp_path.joinpath("merges.txt").write_text("", encoding="utf-8")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["convert", str(tmp_path), str(tmp_path / "to")]) == 1
    err = capsys.readouterr().err
    assert "h.0.\u241b[2J" in err and "\x1b[2J" not in err
