"""A converted folder is the source's model, or it is not written."""

import json

import pytest
import torch
from safetensors.torch import load_file

from cleangpt2 import lineage
from cleangpt2.errors import CheckpointError, ConfigError, OutputError, TokenizerError
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.convert import conversion
from cleangpt2.model.convert.conversion import convert
from cleangpt2.model.pretrained import load, load_model, save, save_model
from cleangpt2.tokenizer import Tokenizer
from tests.helpers import require
from tests.model.convert.writers import nanogpt_checkpoint, write_llmc, write_tensorflow
from tests.model.hard_weights import deviation, hard_model

CONFIG = GPT2Config(vocab_size=270, n_positions=40, n_embd=24, n_layer=2, n_head=4,
                    bos_token_id=None, eos_token_id=None)  # fmt: skip
KINDS = ("tensorflow", "nanogpt", "llmc", "ours")
IDS = torch.arange(40).view(2, 20)


@pytest.fixture(scope="module")
def model():
    return hard_model(CONFIG)


def write(kind: str, folder, model, **settings):
    folder.mkdir(exist_ok=True)
    if kind == "ours":
        save_model(model, folder)
        return folder
    if kind == "tensorflow":
        write_tensorflow(folder, model)
        return folder
    if kind == "nanogpt":
        torch.save(nanogpt_checkpoint(model), folder / "ckpt.pt")
        return folder
    write_llmc(folder / "model.bin", model, **settings)
    return folder / "model.bin"


@pytest.fixture
def source(model, tmp_path):
    return write("llmc", tmp_path / "source", model)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_folder_is_the_source_bit_for_bit(model, tmp_path, kind):
    source = write(kind, tmp_path / "source", model)
    done = convert(source, tmp_path / "to")
    assert (done.difference, done.rounding, done.dtype) == (0.0, 0.0, "float32")
    assert done.tokens == 160
    assert done.largest > 1
    assert done.parameters == sum(parameter.numel() for parameter in model.parameters())
    written = load_model(tmp_path / "to", device="cpu")
    assert torch.equal(written(IDS), load_model(source, device="cpu")(IDS))
    expected = {"config.json", "generation_config.json", "lineage.json", "model.safetensors"}
    assert contents(tmp_path / "to").keys() == expected


@torch.no_grad()
def test_transformers_opens_it_with_the_source_s_logits(model, source, tmp_path):
    transformers = require("transformers")
    convert(source, tmp_path / "to")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "to").eval()
    assert deviation(theirs(IDS).logits, model(IDS)) < 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@torch.no_grad()
def test_rounding_is_measured_and_explained(model, source, tmp_path, dtype):
    done = convert(source, tmp_path / "to", dtype=dtype)
    rounded = hard_model(CONFIG).to(getattr(torch, dtype)).float()
    assert done.difference == done.rounding > 1e-4 * done.largest
    assert done.relative == done.difference / done.largest
    assert done.dtype == dtype
    assert torch.equal(load_model(tmp_path / "to", device="cpu")(IDS), rounded(IDS))


def test_the_source_s_data_type_is_kept(model, tmp_path):
    source = write("llmc", tmp_path / "source", model, version=5)
    done = convert(source, tmp_path / "to")
    assert (done.dtype, done.difference) == ("bfloat16", 0.0)
    stored = load_file(tmp_path / "to" / "model.safetensors").values()
    assert {tensor.dtype for tensor in stored} == {torch.bfloat16}


def test_the_activation_that_was_asked_for_is_written(model, tmp_path):
    source = write("nanogpt", tmp_path / "source", model)
    convert(source, tmp_path / "exact")
    convert(source, tmp_path / "tanh", activation="gelu_new")
    found = [
        json.loads((tmp_path / name / "config.json").read_text())["activation_function"]
        for name in ("exact", "tanh")
    ]
    assert found == ["gelu", "gelu_new"]


def test_the_tokenizer_goes_with_it(source, tmp_path):
    tokenizer = Tokenizer.train(["low low low lower lowest " * 3], vocab_size=264)
    convert(source, tmp_path / "to", tokenizer=tokenizer)
    _, found = load(tmp_path / "to", device="cpu")
    assert found.encode("lower") == tokenizer.encode("lower")


def test_the_lineage_names_the_source(source, tmp_path):
    convert(source, tmp_path / "to")
    made = lineage.read(tmp_path / "to")
    assert made.made_by == "convert"
    assert made.parent.files["model.bin"] == lineage.fingerprint(source)
    assert lineage.differences(tmp_path / "to", made) == {}
    assert made.files.keys() >= {"model.safetensors", "config.json"}


@pytest.mark.parametrize("kind", ["llmc", "nanogpt"])
def test_progress_ends_where_it_said(model, tmp_path, kind):
    seen = []
    source = write(kind, tmp_path / "source", model)
    done = convert(source, tmp_path / "to", progress=lambda *step: seen.append(step))
    assert done.tensors == 28
    assert [step for _, step, _ in seen] == list(range(1, seen[0][2] + 1))
    assert list(dict.fromkeys(what for what, *_ in seen)) == ["reading", "comparing", "writing"]


# What must not happen


@pytest.mark.parametrize("older", [False, True])
def test_a_folder_that_came_out_wrong_is_not_kept(model, source, tmp_path, monkeypatch, older):
    def save_wrongly(model, *args, **kwargs):
        with torch.no_grad():
            model.h[1].mlp.c_proj.weight[3, 7] += 0.1
        save(model, *args, **kwargs)
        with torch.no_grad():
            model.h[1].mlp.c_proj.weight[3, 7] -= 0.1

    to = tmp_path / "to"
    if older:
        save_model(hard_model(CONFIG, seed=1), to)
    before = contents(to)
    monkeypatch.setattr(conversion, "save", save_wrongly)
    with pytest.raises(OutputError, match="what was written differs from .*; nothing was kept"):
        convert(source, to, fresh=True)
    assert contents(to) == before
    assert to.exists() == older


def test_weights_too_large_for_the_type_are_refused(model, tmp_path):
    large = hard_model(CONFIG)
    with torch.no_grad():
        large.h[0].mlp.c_fc.bias[5] = 1e6
    source = write("llmc", tmp_path / "source", large)
    with pytest.raises(OutputError, match="reaches 1e.06, more than torch.float16 can hold"):
        convert(source, tmp_path / "to", dtype="float16")
    assert not (tmp_path / "to").exists()


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    broken = hard_model(CONFIG)
    with torch.no_grad():
        broken.ln_f.bias[5] = float("nan")
    source = write("llmc", tmp_path / "source", broken)
    with pytest.raises(CheckpointError, match="logits that are no numbers"):
        convert(source, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_tokenizer_that_is_too_large_is_refused(source, tmp_path):
    tokenizer = Tokenizer.train(["low low low lower lowest " * 3], vocab_size=264)
    large = tokenizer.add_special_tokens(*(f"<|extra {number}|>" for number in range(7)))
    with pytest.raises(TokenizerError, match="has 271 tokens, the model only 270 embeddings"):
        convert(source, tmp_path / "to", tokenizer=large)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00002.safetensors",
                                  "pytorch_model.bin", "tokenizer.json"])  # fmt: skip
def test_a_folder_that_holds_a_model_is_left_alone(source, tmp_path, name):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / name).touch()
    with pytest.raises(OutputError, match="holds a model: choose another folder, or .*--fresh"):
        convert(source, tmp_path / "to")
    assert contents(tmp_path / "to") == {name: b""}


def test_fresh_leaves_nothing_of_the_older_model(model, source, tmp_path):
    to = tmp_path / "to"
    old = Tokenizer.train(["low low low lower lowest " * 3], vocab_size=264)
    save(hard_model(CONFIG, seed=1), old, to)
    for name in (
        "tokenizer.json",
        "pytorch_model.bin",
        "model.safetensors.index.json",
        "notes.txt",
    ):
        (to / name).touch()
    convert(source, to, fresh=True)
    expected = {"config.json", "generation_config.json", "lineage.json", "model.safetensors"}
    assert contents(to).keys() == {*expected, "notes.txt"}
    assert torch.equal(load_model(to, device="cpu").wte.weight, model.wte.weight)


def test_a_checkpoint_may_be_converted_beside_itself_but_no_folder_onto_itself(model, tmp_path):
    convert(write("nanogpt", tmp_path / "out", model), tmp_path / "out")
    assert (tmp_path / "out" / "ckpt.pt").exists()
    with pytest.raises(OutputError, match="is the model to convert itself"):
        convert(tmp_path / "out", tmp_path / "out", fresh=True)


def test_an_unknown_activation_is_refused_before_anything_is_made(model, tmp_path):
    source = write("nanogpt", tmp_path / "source", model)
    with pytest.raises(ConfigError, match="'gleu' is not supported"):
        convert(source, tmp_path / "to", activation="gleu")
    assert not (tmp_path / "to").exists()
