"""Which program's files a name stands for, and that every door opens them."""

import json

import pytest
import torch

from cleangpt2.cli import main as cli
from cleangpt2.errors import CheckpointError, ConfigError, ModelNotFoundError, TokenizerError
from cleangpt2.hub import locate
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.convert import tokenizers
from cleangpt2.model.convert.formats import open_model
from cleangpt2.model.pretrained import load, load_model, save_model
from cleangpt2.model.summary import summarise, weight_differences
from cleangpt2.tokenizer import Tokenizer
from tests.helpers import run_python
from tests.model.convert.writers import nanogpt_checkpoint, write_llmc, write_tensorflow
from tests.model.hard_weights import hard_model

CONFIG = GPT2Config(vocab_size=270, n_positions=16, n_embd=24, n_layer=2, n_head=4,
                    bos_token_id=None, eos_token_id=None)  # fmt: skip
KINDS = ("tensorflow", "nanogpt", "llmc")


@pytest.fixture(scope="module")
def model():
    return hard_model(CONFIG)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["low low low lower lowest " * 3], vocab_size=264)


def write(kind: str, folder, model):
    """A checkpoint of `kind` in `folder`, and the name to load it by."""
    folder.mkdir(exist_ok=True)
    if kind == "tensorflow":
        write_tensorflow(folder, model)
        return folder
    if kind == "nanogpt":
        torch.save(nanogpt_checkpoint(model), folder / "ckpt.pt")
        return folder / "ckpt.pt"
    write_llmc(folder / "model.bin", model)
    return folder / "model.bin"


def write_openai_vocabulary(tokenizer: Tokenizer, folder) -> None:
    """``encoder.json`` and ``vocab.bpe``, as OpenAI's download holds them."""
    tokenizer.save(folder / "as_ours")
    (folder / "as_ours" / "merges.txt").rename(folder / "vocab.bpe")
    (folder / "as_ours" / "vocab.json").rename(folder / "encoder.json")


# Names


def test_a_checkpoint_stands_before_a_hub_id_of_the_same_form(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("nanogpt", tmp_path / "out", model)
    source = locate("out/ckpt.pt")
    assert source.repo is None
    assert source.checkpoint.samefile(tmp_path / "out" / "ckpt.pt")


def test_a_checkpoint_that_is_not_there_asks_no_hub(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("nanogpt", tmp_path / "out", model)
    with pytest.raises(
        ModelNotFoundError, match="no model 'out/ckp.pt'. Did you mean 'out.ckpt.pt'"
    ):
        locate("out/ckp.pt")


def test_a_folder_called_gpt2_with_a_checkpoint_is_that_checkpoint(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("nanogpt", "tensorflow"):
        (tmp_path / kind).mkdir()
        write(kind, tmp_path / kind / "gpt2", model)
        monkeypatch.chdir(tmp_path / kind)
        assert locate("gpt2").folder is not None
        assert load_model("gpt2", device="cpu").config.vocab_size == 270


def test_a_part_of_a_model_folder_is_no_checkpoint(tmp_path):
    for name in ("pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.safetensors"):
        (tmp_path / name).touch()
        with pytest.raises(ModelNotFoundError, match="is a file; give the folder it is in"):
            locate(tmp_path / name)


def test_our_files_stand_before_others_in_one_folder(model, tmp_path):
    write("nanogpt", tmp_path, hard_model(CONFIG, seed=1))
    save_model(model, tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    assert torch.equal(loaded.wte.weight, model.wte.weight)
    other = load_model(tmp_path / "ckpt.pt", device="cpu")
    assert not torch.equal(other.wte.weight, model.wte.weight)


def test_a_folder_of_something_else_is_named(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ModelNotFoundError, match=r"has no config.json, so it is no model folder"):
        load_model(tmp_path, device="cpu")
    (tmp_path / "checkpoint").touch()
    with pytest.raises(CheckpointError, match="names the checkpoint ''"):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize("kind", ["tensorflow", "llmc", "ours"])
def test_only_nanogpt_leaves_the_activation_open(model, tmp_path, kind):
    if kind == "ours":
        save_model(model, tmp_path)
    name = tmp_path if kind == "ours" else write(kind, tmp_path, model)
    with (
        pytest.raises(ConfigError, match="activation 'gelu' was asked for, but .* says which one"),
        open_model(locate(name), activation="gelu"),
    ):
        pass


# Tokenizers


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_beside_a_checkpoint_goes_with_it(model, tokenizer, tmp_path, kind):
    name = write(kind, tmp_path, model)
    write_openai_vocabulary(tokenizer, tmp_path)
    loaded, found = load(name, device="cpu")
    assert found.vocabulary.ids == tokenizer.vocabulary.ids
    assert found.special_tokens == tokenizer.special_tokens
    assert Tokenizer.from_pretrained(name).encode("lower") == tokenizer.encode("lower")
    assert loaded.config.vocab_size == 270


def test_openais_own_files_give_gpt2s_vocabulary(shared_data, tmp_path):
    for name in ("vocab.bpe", "encoder.json"):
        (tmp_path / name).write_bytes((shared_data / "gpt2" / name).read_bytes())
    tok = Tokenizer.from_pretrained(tmp_path)
    assert tok.vocab_size == 50257
    assert tok.encode("A day without laughter is a day") == [32, 1110, 1231, 20263, 318, 257, 1110]
    assert tok.eos_id == 50256


def test_a_damaged_encoder_is_refused(model, tokenizer, tmp_path):
    write("tensorflow", tmp_path, model)
    write_openai_vocabulary(tokenizer, tmp_path)
    table = json.loads((tmp_path / "encoder.json").read_text(encoding="utf-8"))
    del table["low"]
    (tmp_path / "encoder.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(TokenizerError, match="lacks 'low'"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_vocabulary_the_error_names_the_way_out(model, tmp_path, kind):
    name = write(kind, tmp_path, model)
    with pytest.raises(TokenizerError) as caught:
        load(name, device="cpu")
    message = str(caught.value)
    assert "brings no tokenizer, and its 270 tokens are not GPT-2's" in message
    assert "convert --tokenizer FOLDER" in message and "meta.pkl is a pickle" in message
    assert "\n" not in message


@pytest.mark.parametrize("vocab_size", [50257, 50304])
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_tokens_as_gpt2_has_are_gpt2s(tmp_path, monkeypatch, tokenizer, kind, vocab_size):
    config = GPT2Config(vocab_size=vocab_size, n_positions=4, n_embd=4, n_layer=1, n_head=1)
    name = write(kind, tmp_path / "checkpoint", hard_model(config))
    tokenizer.save(tmp_path / "stands for gpt2")
    asked = []

    def find(model):
        asked.append(model)
        return locate(tmp_path / "stands for gpt2")

    monkeypatch.setattr(tokenizers, "locate", find)
    _, found = load(name, device="cpu")
    assert asked == ["gpt2"]
    assert found.vocabulary.ids == tokenizer.vocabulary.ids


def test_every_command_finds_the_same_tokenizer(tmp_path, monkeypatch, tokenizer, capsys):
    config = GPT2Config(vocab_size=50257, n_positions=4, n_embd=4, n_layer=1, n_head=1)
    name = str(write("llmc", tmp_path, hard_model(config)))
    tokenizer.save(tmp_path / "stands for gpt2")
    monkeypatch.setattr(tokenizers, "locate", lambda _: locate(tmp_path / "stands for gpt2"))
    assert cli.main(["tokenize", "low lower", "--model", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ids"] == tokenizer.encode("low lower")
    assert cli.main(["convert", name, str(tmp_path / "to"), "--tokenizer", name]) == 0
    assert Tokenizer.from_pretrained(tmp_path / "to").vocabulary.ids == tokenizer.vocabulary.ids


def test_a_folder_with_a_vocabulary_needs_no_torch(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    ask = (
        "import sys; from cleangpt2.hub import locate; "
        "from cleangpt2.model.convert.tokenizers import tokenizer_of; "
        f"tokenizer_of(locate({str(tmp_path)!r})); print('torch' in sys.modules)"
    )
    assert run_python("-c", ask).stdout.strip() == "False"


def test_a_larger_vocabulary_is_not_taken_for_gpt2s(tmp_path):
    config = GPT2Config(vocab_size=50300, n_positions=4, n_embd=4, n_layer=1, n_head=1)
    with pytest.raises(TokenizerError, match="its 50,300 tokens are not GPT-2's"):
        load(write("llmc", tmp_path, hard_model(config)), device="cpu")


def test_the_tokenizer_alone_of_a_lone_checkpoint_is_refused(model, tmp_path):
    with pytest.raises(TokenizerError, match="has no tokenizer: neither merges.txt nor"):
        Tokenizer.from_pretrained(write("llmc", tmp_path, model))


# Figures


@pytest.mark.parametrize("kind", KINDS)
def test_info_describes_a_checkpoint(model, tmp_path, kind):
    name = write(kind, tmp_path, model)
    summary = summarise(name)
    assert summary.total == sum(parameter.numel() for parameter in model.parameters())
    assert summary.stored.dtypes == ("float32",)
    assert summary.stored.tensors >= 28
    assert "checkpoint and the headers of the weight files" in summary.origin
    save_model(model, tmp_path / "ours")
    differences = weight_differences(name, tmp_path / "ours")
    assert set(differences.values()) == {0.0}
    other = write(kind, tmp_path / "other", hard_model(CONFIG, seed=1))
    assert min(weight_differences(name, other).values()) > 0


def test_a_published_size_that_is_not_here_has_no_weights_to_compare(model, tmp_path):
    name = write("llmc", tmp_path, model)
    if locate("gpt2-xl").local("model.safetensors") is None:
        assert weight_differences(name, "gpt2-xl") is None
