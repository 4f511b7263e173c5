"""Checkpoints of karpathy/nanoGPT: the ``ckpt.pt`` that its ``train.py`` saves.

It is a dictionary in PyTorch's format: the weights under ``model``, the shape under
``model_args``, and the optimiser, which stays in the file. Linear weights are (out, in) as ours.
With ``bias=False`` no layer adds anything, which is the same function as a bias of zeros.

Which GELU the model was trained with stands nowhere in the file. nanoGPT has taken the exact one
since June 2023 (its pull request 274) and OpenAI's tanh form before; so the exact one is assumed,
and ``activation`` says otherwise.
"""

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cleangpt2.errors import CheckpointError, ConfigError
from cleangpt2.model.config import GPT2Config, end_of_text
from cleangpt2.model.weights import Opened, StoredTensor, in_memory, read_pickle

FILENAME = "ckpt.pt"
ACTIVATION = "gelu"

_KEYS = {
    "vocab_size": "vocab_size",
    "block_size": "n_positions",
    "n_embd": "n_embd",
    "n_layer": "n_layer",
    "n_head": "n_head",
}
_WITH_BIAS = re.compile(r"(.*(?:ln_1|ln_2|ln_f|c_attn|c_proj|c_fc)\.)weight")
_MASK = re.compile(r"h\.\d+\.attn\.bias")  # a constant that versions for PyTorch 1 kept


def open_checkpoint(path: Path, activation: str | None = None) -> Opened:
    """Look into a ``ckpt.pt``.

    Args:
        path: The file.
        activation: Its GELU, where it is not the exact one: ``gelu_new`` for the tanh form.

    Raises:
        CheckpointError: Damaged, or not written by nanoGPT.
        ConfigError: Its ``model_args`` describe no GPT-2.
    """
    content = read_pickle(path)
    parts = content if isinstance(content, dict) else {}
    args, stored = parts.get("model_args"), in_memory(parts.get("model"), path)
    if not isinstance(args, dict) or stored is None:
        raise CheckpointError(
            f"{path} is no checkpoint of nanoGPT, which holds 'model' and 'model_args': "
            "for other weights give the folder that holds them and their config.json"
        )
    try:
        config = _config(args, activation or ACTIVATION)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    named = {_our_name(name): tensor for name, tensor in stored.items()}
    weights = {name: tensor for name, tensor in named.items() if not _MASK.fullmatch(name)}
    if not args.get("bias", True):
        weights |= _zero_biases(weights)
    return Opened(
        config=config,
        tensors=weights,
        files=(path,),
        kind="nanoGPT checkpoint",
        described_by="model_args",
    )


def _config(args: dict[str, Any], activation: str) -> GPT2Config:
    """The configuration that ``model_args`` stand for."""
    if missing := [key for key in _KEYS if type(args.get(key)) is not int]:
        raise ConfigError(f"its model_args give no number for {missing[0]}, as nanoGPT's do")
    for key, value in args.items():
        # A fork's switch changes the arithmetic, unless it is off.
        if key not in (*_KEYS, "bias", "dropout") and value is not None and value is not False:
            raise ConfigError(
                f"its model_args hold {key!r}, which karpathy/nanoGPT does not have: "
                "only models of GPT-2's architecture can be read"
            )
    dropout = args.get("dropout", 0.0)
    end = end_of_text(args["vocab_size"])
    return GPT2Config(
        **{ours: args[theirs] for theirs, ours in _KEYS.items()},
        activation_function=activation,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=end,
        eos_token_id=end,
    )


def _our_name(name: str) -> str:
    """A parameter's name without what torch.compile and nanoGPT put before it.

    >>> _our_name("_orig_mod.transformer.h.0.ln_1.weight"), _our_name("lm_head.weight")
    ('h.0.ln_1.weight', 'lm_head.weight')
    """
    return name.removeprefix("_orig_mod.").removeprefix("transformer.")


def _zero_biases(weights: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """A bias of zeros for every layer that has a weight and could have one."""
    return {
        f"{found[1]}bias": dataclasses.replace(
            weight, shape=weight.shape[:1], read=partial(torch.zeros, weight.shape[:1])
        )
        for name, weight in weights.items()
        if (found := _WITH_BIAS.fullmatch(name)) and f"{found[1]}bias" not in weights
    }
