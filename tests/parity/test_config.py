"""No key of a GPT-2 ``config.json`` changes transformers' numbers behind our back.

Every key that transformers' ``GPT2Config`` has is a field of ours, refused by name, or shown
here to leave the logits alone. A new key in a new transformers fails the first test.
"""

import dataclasses

import pytest
import torch

from cleangpt2.errors import ConfigError
from cleangpt2.model.config import ALIASES, UNSUPPORTED, GPT2Config
from tests.helpers import require
from tests.parity.test_model import SMALL, random_ids

FIELDS = {field.name for field in dataclasses.fields(GPT2Config)}
SILENT = {
    "transformers_version": "4.0.0",
    "architectures": ["GPT2DoubleHeadsModel"],
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "bfloat16",  # of the stored weights; ours is chosen when the model is loaded
    "id2label": {"0": "a", "1": "b", "2": "c"},
    "label2id": {"a": 0, "b": 1, "c": 2},
    "problem_type": "regression",
    "summary_type": "mean",
    "summary_use_proj": False,
    "summary_activation": "tanh",
    "summary_proj_to_labels": False,
    "summary_first_dropout": 0.9,
    "use_cache": False,
    "_name_or_path": "elsewhere",
}
"""Keys that we pass over, each with another value than transformers' default."""

SWITCHED_ON = {
    "add_cross_attention": True,
    "is_encoder_decoder": True,
    "pruned_heads": {"0": [1]},
    "quantization_config": {"quant_method": "bitsandbytes"},
    "chunk_size_feed_forward": 2,
    "is_causal": False,
}
"""A value for each key of UNSUPPORTED that asks for what we do not have."""


def logits(**changes) -> torch.Tensor:
    """What transformers computes with fixed weights and a changed configuration."""
    transformers = require("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(**{**SMALL.to_dict(), "initializer_range": 0.2, **changes})
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        return model(random_ids(1, 16))[0]


def test_every_key_of_transformers_is_known_here():
    config = require("transformers").GPT2Config()
    keys = {*config.to_dict(), *config.attribute_map}
    other = {"model_type", "return_dict"}  # refused if not gpt2; a container, not a number
    assert keys - FIELDS - {*UNSUPPORTED, *SILENT, *ALIASES, *other} == set()


def test_our_aliases_mean_what_they_mean_to_transformers():
    attribute_map = require("transformers").GPT2Config.attribute_map
    assert {key: ALIASES[key] for key in attribute_map} == attribute_map


@pytest.mark.parametrize("key", SILENT)
def test_a_key_that_we_pass_over_leaves_the_logits_alone(key):
    assert torch.equal(logits(**{key: SILENT[key]}), logits())
    assert GPT2Config.from_dict({**SMALL.to_dict(), key: SILENT[key]}) == SMALL


def test_a_configuration_that_looks_both_ways_is_refused_and_would_matter():
    assert not torch.equal(logits(is_causal=False), logits())


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_a_switch_we_do_not_have_is_refused_by_name_and_accepted_when_off(key):
    assert GPT2Config.from_dict({**SMALL.to_dict(), key: UNSUPPORTED[key]}) == SMALL
    with pytest.raises(ConfigError, match=f"{key} .* does not support"):
        GPT2Config.from_dict({**SMALL.to_dict(), key: SWITCHED_ON[key]})


def test_the_defaults_are_those_of_transformers():
    config = require("transformers").GPT2Config()
    assert GPT2Config.from_dict(config.to_dict()) == GPT2Config()
    assert {name: getattr(config, name) for name in FIELDS} == dataclasses.asdict(GPT2Config())


def test_transformers_reads_back_every_field_we_write():
    transformers = require("transformers")
    ours = dataclasses.replace(
        SMALL, n_inner=96, activation_function="relu", scale_attn_by_inverse_layer_idx=True,
        scale_attn_weights=False, reorder_and_upcast_attn=True, tie_word_embeddings=False,
        layer_norm_epsilon=1e-3, resid_pdrop=0.0, embd_pdrop=0.2, attn_pdrop=0.3, pad_token_id=7,
    )  # fmt: skip
    theirs = transformers.GPT2Config.from_dict(ours.to_dict())
    assert {name: getattr(theirs, name) for name in FIELDS} == dataclasses.asdict(ours)
    assert GPT2Config.from_dict(theirs.to_dict()) == ours
