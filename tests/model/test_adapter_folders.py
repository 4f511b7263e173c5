"""The folder of an adapter is a model by itself: its base, with the adapter in use."""

import json

import pytest
import torch

from cleangpt2.errors import CheckpointError, ModelNotFoundError, TokenizerError
from cleangpt2.model.adapter_files import CONFIG, save_adapter
from cleangpt2.model.lora import active_adapter, add_adapter, base_only
from cleangpt2.model.lora_config import LoraConfig
from cleangpt2.model.pretrained import load, load_model, save
from cleangpt2.tokenizer.chat import load_template
from tests.stubs import random_model, small_tokenizer

IDS = torch.arange(9)[None]


@pytest.fixture
def trained(tmp_path):
    """A base in a folder, and a model with an adapter that has learned something."""
    tokenizer = small_tokenizer()
    model = random_model(tokenizer.vocab_size)
    save(model, tokenizer, tmp_path / "base")
    add_adapter(model, LoraConfig(r=2, alpha=4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.2)
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    return model


def test_it_gives_the_base_with_the_adapter(trained, tmp_path):
    model, tokenizer = load(tmp_path / "adapter", device="cpu")
    assert torch.equal(model(IDS), trained(IDS))
    assert active_adapter(model) == "default" and not model.training
    assert tokenizer.vocab_size == small_tokenizer().vocab_size  # the base's, for want of its own
    with base_only(model):
        assert torch.equal(model(IDS), load_model(tmp_path / "base", device="cpu")(IDS))
        assert not torch.equal(model(IDS), trained(IDS))


def test_its_own_tokenizer_is_taken_and_not_the_bases(trained, tmp_path):
    load_template("plain", small_tokenizer()).tokenizer.save(tmp_path / "adapter")
    _, tokenizer = load(tmp_path / "adapter", device="cpu")
    assert "chat_template" in tokenizer.vocabulary.settings


def test_a_tokenizer_with_more_tokens_than_the_base_is_refused(trained, tmp_path):
    load_template("chatml", small_tokenizer()).tokenizer.save(tmp_path / "adapter")
    with pytest.raises(TokenizerError, match="has 302 tokens, the model only 300"):
        load(tmp_path / "adapter", device="cpu")


def test_a_relative_path_is_no_name_of_the_hub(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    model = load_model(f"{tmp_path.name}/adapter", device="cpu")
    assert torch.equal(model(IDS), trained(IDS))


def test_a_whole_model_beside_an_adapter_is_the_model(trained, tmp_path):
    plain = load_model(tmp_path / "base", device="cpu")
    save(plain, None, tmp_path / "adapter")
    assert torch.equal(load_model(tmp_path / "adapter", device="cpu")(IDS), plain(IDS))


@pytest.mark.parametrize(
    ("base", "error", "says"),
    [
        ("", CheckpointError, "does not name the model"),
        ("{here}/nowhere", ModelNotFoundError, "nowhere"),
        ("{here}/adapter", CheckpointError, "holds an adapter itself"),
    ],
)
def test_a_base_that_cannot_be_had_costs_one_line(trained, tmp_path, base, error, says):
    path = tmp_path / "adapter" / CONFIG
    said = json.loads(path.read_text(encoding="utf-8"))
    said["base_model_name_or_path"] = base.format(here=tmp_path)
    path.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(error, match=says):
        load_model(tmp_path / "adapter", device="cpu")
