"""The numbers that define a GPT-2, in the keys of Hugging Face's ``config.json``.

Every switch that changes GPT-2's arithmetic is honoured or refused by name; nothing is
silently ignored. The sizes are those of Radford et al. (2019), "Language Models are
Unsupervised Multitask Learners", and of DistilGPT2.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from cleangpt2.errors import ConfigError, did_you_mean

ACTIVATIONS = (
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_fast",
    "gelu",
    "relu",
    "silu",
    "swish",
    "tanh",
)

# Other names in use for the same numbers: nanoGPT, llm.c and the attribute map of transformers.
ALIASES = {
    "block_size": "n_positions",
    "max_position_embeddings": "n_positions",
    "context_length": "n_positions",
    "n_ctx": "n_positions",
    "n_layers": "n_layer",
    "num_layers": "n_layer",
    "num_hidden_layers": "n_layer",
    "n_heads": "n_head",
    "num_heads": "n_head",
    "num_attention_heads": "n_head",
    "hidden_size": "n_embd",
    "d_model": "n_embd",
    "padded_vocab_size": "vocab_size",
}

# Keys of `config.json` that change what the model computes and that this GPT-2 does not have:
# key -> the one value that switches it off.
UNSUPPORTED = {
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
    "quantization_config": None,
    "chunk_size_feed_forward": 0,
    "is_causal": True,
}

GPT2_VOCAB_SIZES = (50257, 50304)
"""Rows of GPT-2's own embedding, as it is and padded to a multiple of 64."""

LARGEST_SIZE = 2**24
"""No dimension of a GPT-2 comes near it; a corrupt ``config.json`` does, and would ask for
more memory than a machine can count."""

LARGEST_DEPTH = 2**12
"""Layers; even an outline without memory takes a millisecond for each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GPT2Config:
    """Shape and switches of one GPT-2; the defaults are the 124M model.

    >>> GPT2Config(n_layer=2, n_head=4, n_embd=64).head_width
    16
    """

    vocab_size: int = 50257
    """Rows of the token embedding."""
    n_positions: int = 1024
    """Longest context, in tokens."""
    n_embd: int = 768
    """Width C of the residual stream."""
    n_layer: int = 12
    """Number of blocks L."""
    n_head: int = 12
    """Attention heads H of each block; must divide `n_embd`."""
    n_inner: int | None = None
    """Width of the MLP's hidden layer; `None` means 4 * `n_embd`."""
    activation_function: str = "gelu_new"
    """The MLP's nonlinearity; GPT-2 uses the tanh approximation of GELU."""
    resid_pdrop: float = 0.1
    """Dropout on what each block adds to the residual stream, while training."""
    embd_pdrop: float = 0.1
    """Dropout on the embeddings, while training."""
    attn_pdrop: float = 0.1
    """Dropout on the attention weights, while training."""
    layer_norm_epsilon: float = 1e-5
    """Added to the variance in every layer norm."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""
    scale_attn_weights: bool = True
    """Divide attention scores by the square root of the head width."""
    scale_attn_by_inverse_layer_idx: bool = False
    """Divide attention scores by the number of the layer, counted from 1 (Mistral's GPT-2 runs)."""
    reorder_and_upcast_attn: bool = False
    """Compute attention in float32 whatever the model's data type (Mistral's GPT-2 runs)."""
    tie_word_embeddings: bool = True
    """Use the token embedding as the output layer."""
    bos_token_id: int | None = 50256
    """Token that starts a text; GPT-2 has one token for start and end."""
    eos_token_id: int | None = 50256
    """Token that ends a text."""
    pad_token_id: int | None = None
    """Token that fills a batch, where the vocabulary has one."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
            value = getattr(self, name)
            largest = LARGEST_DEPTH if name == "n_layer" else LARGEST_SIZE
            if value is not None and not 1 <= value <= largest:
                raise ConfigError(f"{name} is {value}; it must lie from 1 to {largest:,}")
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"n_embd {self.n_embd} cannot be split into {self.n_head} heads: "
                "choose n_head so that it divides n_embd"
            )
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; dropout lies in [0, 1)")
        for name in ("layer_norm_epsilon", "initializer_range"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive")
        if self.activation_function not in ACTIVATIONS:
            raise ConfigError(
                f"activation_function {self.activation_function!r} is not supported; "
                f"known: {', '.join(ACTIVATIONS)}"
            )

    @property
    def head_width(self) -> int:
        """Channels D of one head."""
        return self.n_embd // self.n_head

    @property
    def mlp_width(self) -> int:
        """Channels of the MLP's hidden layer."""
        return self.n_inner or 4 * self.n_embd

    def attention_scale(self, layer: int) -> float:
        """What the scores q.k of block `layer` (counted from 0) are multiplied by."""
        scale = self.head_width**-0.5 if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GPT2Config":
        """Read the keys of a ``config.json``.

        Keys that do not touch the arithmetic (task heads, generation defaults, versions) are
        passed over, as in transformers.

        Raises:
            ConfigError: Another architecture, a switch this GPT-2 does not have, a bad value, or
                two spellings of one key (see ``ALIASES``) that disagree.
        """
        if not isinstance(values, dict):
            raise ConfigError(
                f"the configuration is {values!r}, a {type(values).__name__}; "
                "give a dict with the keys of a config.json"
            )
        model_type = values.get("model_type", "gpt2")
        if model_type != "gpt2":
            raise ConfigError(
                f"config.json describes a {model_type!r} model; cleangpt2 reads 'gpt2' only"
            )
        for key, off in UNSUPPORTED.items():
            if values.get(key, off) not in (off, None):
                raise ConfigError(
                    f"config.json sets {key} to {values[key]!r}, which cleangpt2 does not support; "
                    f"only {off!r} is"
                )
        known = {field.name for field in dataclasses.fields(cls)}
        kept: dict[str, Any] = {}
        # The proper keys first, so that an alias never overrules one.
        for key, value in sorted(values.items(), key=lambda item: item[0] in known, reverse=True):
            name = ALIASES.get(key, key)
            # Old files hold n_ctx beside n_positions, and transformers does not read it.
            if name not in known or (key == "n_ctx" and name in kept):
                continue
            if kept.setdefault(name, value) != value:
                raise ConfigError(
                    f"config.json sets {name} to {kept[name]!r} and {key}, another name for it, "
                    f"to {value!r}: keep the one that is right"
                )
        # Rounded numbers such as `attn_pdrop: 0` are integers in JSON.
        for field in dataclasses.fields(cls):
            if field.type is float and type(kept.get(field.name)) is int:
                kept[field.name] = float(kept[field.name])
        return cls(**kept)

    def to_dict(self) -> dict[str, Any]:
        """The keys of a ``config.json`` that transformers opens as ``GPT2LMHeadModel``."""
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            **dataclasses.asdict(self),
        }


def end_of_text(vocab_size: int) -> int | None:
    """The id that ends a text where the vocabulary is GPT-2's; formats without a tokenizer ask."""
    return 50256 if vocab_size in GPT2_VOCAB_SIZES else None


def _check_type(name: str, value: object, expected: Any) -> None:
    """Raise ConfigError unless `value` is of the annotated type; say what a 1-tuple means."""
    if isinstance(value, tuple) and len(value) == 1:
        raise ConfigError(
            f"{name} is the tuple {value!r}, not a number: is there a trailing comma after its "
            f"value? Write `{name} = {value[0]!r}` without one"
        )
    # bool is a subclass of int, so True would pass for 1; and every int is a fine float.
    fits = isinstance(value, expected) and not (isinstance(value, bool) and expected is not bool)
    if not fits and not (expected is float and type(value) is int):
        wanted = getattr(expected, "__name__", str(expected))
        raise ConfigError(f"{name} is {value!r}, a {type(value).__name__}; it must be {wanted}")


def _size(n_layer: int, n_head: int, n_embd: int) -> GPT2Config:
    return GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd)


SIZES = {
    "distilgpt2": _size(6, 12, 768),
    "gpt2": _size(12, 12, 768),
    "gpt2-medium": _size(24, 16, 1024),
    "gpt2-large": _size(36, 20, 1280),
    "gpt2-xl": _size(48, 25, 1600),
}
"""The published sizes by name."""


def size(name: str) -> GPT2Config:
    """The configuration of a published size.

    >>> size("gpt2-xl").n_layer
    48
    """
    if name not in SIZES:
        raise ConfigError(
            f"no size {name!r}; known: {', '.join(SIZES)}.{did_you_mean(name, SIZES)}"
        )
    return SIZES[name]
