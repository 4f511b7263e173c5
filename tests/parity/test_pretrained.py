"""transformers opens what we write, and we open what it writes, with equal logits."""

import json

import pytest
import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.pretrained import load_model, save_model
from tests.helpers import require

SHAPE = {"vocab_size": 97, "n_positions": 32, "n_embd": 24, "n_layer": 3, "n_head": 4}
CONFIGS = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "inner": {"n_inner": 40, "activation_function": "gelu", "layer_norm_epsilon": 1e-3},
    "mistral": {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    "padded": {"vocab_size": 128, "pad_token_id": 3, "eos_token_id": 2, "bos_token_id": 1},
}
IDS = torch.arange(1, 61).view(2, 30)


@pytest.fixture(scope="module")
def transformers():
    return require("transformers")


def scrambled(module: torch.nn.Module) -> torch.nn.Module:
    """Random biases and norms too, so that a tensor in the wrong place shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.3)
    return module.eval()


@torch.no_grad()
def assert_equal_logits(ours: GPT2, theirs: torch.nn.Module) -> None:
    expected = theirs(IDS).logits
    torch.testing.assert_close(ours(IDS), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("switches", CONFIGS.values(), ids=CONFIGS)
def test_transformers_opens_ours_with_nothing_missing_or_unexpected(
    transformers, tmp_path, switches
):
    ours = scrambled(GPT2(GPT2Config(**(SHAPE | switches))))
    save_model(ours, tmp_path)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    assert not any(report.values()), report
    assert_equal_logits(ours, theirs.eval())
    config = GPT2Config.from_dict(theirs.config.to_dict())
    assert config == ours.config
    generation = theirs.generation_config
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (
        config.bos_token_id,
        config.eos_token_id,
        config.pad_token_id,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_transformers_sees_the_data_type_we_stored(transformers, tmp_path, dtype):
    save_model(scrambled(GPT2(GPT2Config(**SHAPE))), tmp_path, dtype=dtype)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert theirs.dtype == getattr(torch, dtype)
    assert_equal_logits(load_model(tmp_path, device="cpu"), theirs.float().eval())


@pytest.fixture
def theirs(transformers):
    def make(**switches):
        config = transformers.GPT2Config(**(SHAPE | switches), attn_implementation="eager")
        return scrambled(transformers.GPT2LMHeadModel(config))

    return make


@pytest.mark.parametrize("switches", CONFIGS.values(), ids=CONFIGS)
def test_we_open_what_transformers_saves(theirs, tmp_path, switches):
    model = theirs(**switches)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert_equal_logits(load_model(tmp_path, device="cpu"), model)


def test_we_open_what_transformers_shards(theirs, tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert len(set(index["weight_map"].values())) > 2
    assert_equal_logits(load_model(tmp_path, device="cpu"), model)


def test_we_open_the_base_model_without_its_prefix(theirs, tmp_path):
    model = theirs()
    model.transformer.save_pretrained(tmp_path)
    assert_equal_logits(load_model(tmp_path, device="cpu"), model)


def test_we_open_an_old_pickle_with_masks_and_a_tied_head(theirs, tmp_path):
    model = theirs()
    model.config.save_pretrained(tmp_path)
    old = dict(model.state_dict())
    assert "lm_head.weight" in old
    for layer in range(3):
        old[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32).tril().to(torch.uint8)
        old[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(old, tmp_path / "pytorch_model.bin")
    assert_equal_logits(load_model(tmp_path, device="cpu"), model)


def test_a_round_trip_through_us_changes_no_byte_of_the_weights(theirs, tmp_path):
    from safetensors.torch import load_file

    theirs().save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs", device="cpu"), tmp_path / "ours")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "ours" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
