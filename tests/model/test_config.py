"""GPT2Config takes what a ``config.json`` holds and refuses what it cannot mean."""

import dataclasses
import json
from dataclasses import dataclass

import pytest

from cleangpt2.errors import ConfigError
from cleangpt2.model.config import ACTIVATIONS, ALIASES, LARGEST_DEPTH, LARGEST_SIZE
from tests.helpers import unchecked

config_module = unchecked("cleangpt2.model.config")  # most tests here give wrong types on purpose
GPT2Config, SIZES, size = config_module.GPT2Config, config_module.SIZES, config_module.size

# What the published folders hold beside the sizes; the last two lines are of older versions.
PUBLISHED = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
    "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_positions": 1024,
    "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257, "n_special": 0, "predict_special_tokens": True, "output_past": True,
    "_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
    "finetuning_task": None, "num_labels": 1, "output_attentions": False, "is_decoder": False,
    "output_hidden_states": False, "pruned_heads": {}, "torchscript": False, "use_cache": True,
    "use_bfloat16": False, "gradient_checkpointing": False, "torch_dtype": "float32",
    "transformers_version": "4.11.0",
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_the_published_folders_are_read_as_their_sizes(name):
    numbers = {key: getattr(SIZES[name], key) for key in ("n_embd", "n_head", "n_layer")}
    assert GPT2Config.from_dict(json.loads(json.dumps(PUBLISHED | numbers))) == SIZES[name]


def test_the_sizes_have_the_published_numbers_of_parameters():
    def parameters(config: GPT2Config) -> int:
        C, V = config.n_embd, config.vocab_size
        block = 12 * C * C + 13 * C  # 4 C^2 of attention, 8 C^2 of MLP; 9 C of biases, 4 C of norms
        return (V + config.n_positions) * C + config.n_layer * block + 2 * C

    assert {name: parameters(config) for name, config in SIZES.items()} == {
        "distilgpt2": 81_912_576,
        "gpt2": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
    }


def test_an_unknown_size_suggests_the_nearest():
    assert size("gpt2-medium") is SIZES["gpt2-medium"]
    with pytest.raises(ConfigError, match="Did you mean 'gpt2-medium'"):
        size("gpt2-meduim")


def test_the_seeds_config_class_is_refused_for_its_trailing_commas():
    # fmt: off
    @dataclass
    class Config:
        vocab_size: int = 50304,
        block_size: int = 1024,
        n_layers: int = 12,
        n_head: int = 12,
        n_embd: int = 768
    # fmt: on

    assert Config().vocab_size == (50304,)  # Python itself says nothing
    with pytest.raises(ConfigError, match="trailing comma"):
        GPT2Config.from_dict(dataclasses.asdict(Config()))


@pytest.mark.parametrize("key", ["vocab_size", "block_size", "n_layers", "n_head", "attn_pdrop"])
def test_a_one_tuple_is_told_from_other_mistakes_and_its_line_written_out(key):
    name = ALIASES.get(key, key)
    with pytest.raises(ConfigError, match=rf"trailing comma .* Write `{name} = 12`"):
        GPT2Config.from_dict({key: (12,)})
    with pytest.raises(ConfigError, match=f"{name} is") as error:
        GPT2Config.from_dict({key: (12, 13)})
    assert "trailing comma" not in str(error.value)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_common_spellings_are_read_as_the_proper_key(alias, name):
    assert getattr(GPT2Config.from_dict({alias: 24}), name) == 24


def test_two_spellings_of_one_key_may_agree_but_not_differ():
    both = {"n_embd": 24, "hidden_size": 24}
    assert GPT2Config.from_dict(both).n_embd == 24
    with pytest.raises(ConfigError, match="n_embd to 24 and hidden_size, another name .* to 36"):
        GPT2Config.from_dict(both | {"hidden_size": 36})
    with pytest.raises(ConfigError, match="n_positions to 8"):
        GPT2Config.from_dict({"block_size": 8, "context_length": 16})


@pytest.mark.parametrize("order", [("n_ctx", "n_positions"), ("n_positions", "n_ctx")])
def test_n_ctx_counts_only_where_n_positions_is_missing(order):
    numbers = {"n_ctx": 64, "n_positions": 128}
    assert GPT2Config.from_dict({key: numbers[key] for key in order}).n_positions == 128
    assert GPT2Config.from_dict({"n_ctx": 64}).n_positions == 64


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "bert", "", 5, ["gpt2"]])
def test_another_architecture_is_refused_by_name(name):
    with pytest.raises(ConfigError, match="reads 'gpt2' only"):
        GPT2Config.from_dict({"model_type": name})


@pytest.mark.parametrize("values", [[], None, "gpt2", 5])
def test_what_is_no_dict_is_refused(values):
    with pytest.raises(ConfigError, match=r"configuration is .*; give a dict") as caught:
        unchecked("cleangpt2.model.config").GPT2Config.from_dict(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["gelu_old", "quick_gelu", "GELU", ""])
def test_an_unknown_activation_lists_the_known_ones(value):
    with pytest.raises(ConfigError, match=f"'{value}' is not supported; known: gelu_new, "):
        GPT2Config(activation_function=value)


@pytest.mark.parametrize("field", ["vocab_size", "n_layer", "n_head", "n_inner", "eos_token_id"])
@pytest.mark.parametrize("value", [True, 12.0, "12", [12], {}])
def test_what_is_no_integer_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"{field} is .*, a {type(value).__name__}; .* int"):
        GPT2Config.from_dict({field: value})


@pytest.mark.parametrize("field", ["attn_pdrop", "layer_norm_epsilon"])
@pytest.mark.parametrize("value", ["0.1", True, None, [0.1]])
def test_what_is_no_number_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"{field} is .* it must be float"):
        GPT2Config.from_dict({field: value})


@pytest.mark.parametrize("field", ["scale_attn_weights", "tie_word_embeddings"])
@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_what_is_no_truth_value_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"{field} is .* it must be bool"):
        GPT2Config.from_dict({field: value})


def test_a_rounded_number_of_json_becomes_a_float():
    config = GPT2Config.from_dict(json.loads('{"attn_pdrop": 0, "layer_norm_epsilon": 1}'))
    assert (config.attn_pdrop, config.layer_norm_epsilon) == (0.0, 1.0)
    assert type(config.attn_pdrop) is type(config.layer_norm_epsilon) is float


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("vocab_size", [0, -1, LARGEST_SIZE + 1, 10**30]),
        ("n_positions", [0, LARGEST_SIZE + 1]),
        ("n_inner", [0, -4]),
        ("n_layer", [0, LARGEST_DEPTH + 1]),
        ("n_head", [0]),
        ("resid_pdrop", [-0.1, 1.0, NAN, INFINITY]),
        ("layer_norm_epsilon", [0.0, -1e-5, NAN, INFINITY]),
        ("initializer_range", [0.0, NAN]),
    ],
)
def test_a_number_out_of_range_is_refused_by_name_and_value(field, values):
    for value in values:
        with pytest.raises(ConfigError, match=f"{field} is {value}; "):
            GPT2Config(**{field: value})


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="n_embd 768 cannot be split into 7 heads"):
        GPT2Config(n_head=7)


def test_a_refused_value_is_one_line_and_a_value_error():
    with pytest.raises(ValueError, match="n_layer") as error:
        GPT2Config.from_dict({"n_layer": "a\nb"})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(),
        *SIZES.values(),
        *(GPT2Config(activation_function=name) for name in ACTIVATIONS),
        GPT2Config(n_inner=100, pad_token_id=3, eos_token_id=None, tie_word_embeddings=False),
    ],
)
def test_writing_and_reading_through_json_gives_the_same(config):
    values = json.loads(json.dumps(config.to_dict()))
    assert GPT2Config.from_dict(values) == config
    assert (values["model_type"], values["architectures"]) == ("gpt2", ["GPT2LMHeadModel"])


def test_derived_numbers():
    config = GPT2Config(n_embd=64, n_head=4)
    assert (config.head_width, config.mlp_width) == (16, 256)
    assert dataclasses.replace(config, n_inner=100).mlp_width == 100
    assert [config.attention_scale(layer) for layer in (0, 5)] == [0.25, 0.25]
    by_layer = dataclasses.replace(config, scale_attn_by_inverse_layer_idx=True)
    assert [by_layer.attention_scale(layer) for layer in (0, 3)] == [0.25, 0.0625]
    unscaled = dataclasses.replace(by_layer, scale_attn_weights=False)
    assert [unscaled.attention_scale(layer) for layer in (0, 3)] == [1.0, 0.25]


def test_a_config_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPT2Config().n_layer = 3
