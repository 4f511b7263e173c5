"""Adapters in files, as PEFT writes them: ``adapter_config.json``, ``adapter_model.safetensors``.

PEFT opens our folders and we open its, with no difference in any output. Its names are those of
transformers' model, in which GPT-2's layers are stored (in, out); an adapter's matrices are not.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cleangpt2.errors import CheckpointError, ConfigError
from cleangpt2.files import read_text, written_aside
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.lora import DEFAULT, LowRank, adapted, adapters, add_adapter
from cleangpt2.model.lora_config import TARGETS, LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model.transformer."

# Keys of PEFT's that change what an adapter computes and that ours has not, with their off values.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "use_qalora": (False, None),
    "alora_invocation_tokens": (None,),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "target_parameters": (None, []),
}
_KEY = re.compile(r"(h\.\d+)\.([a-z_.]+)\.lora_([AB])\.weight")


def save_adapter(model: GPT2, folder: str | Path, name: str = DEFAULT, *, base: str = "") -> None:
    """Write one of the model's adapters into a folder that PEFT opens.

    Args:
        model: Carries the adapter.
        folder: Made if it does not exist.
        name: Which adapter.
        base: The model it belongs to, as `load` takes it; it is what the folder will name.

    Raises:
        ConfigError: The model has no such adapter.
        OutputError: The folder cannot be written.
    """
    layers = {key: cast(LowRank, layer.adapters[name]) for key, layer in adapted(model)
              if name in layer.adapters}  # fmt: skip
    if not layers:
        raise ConfigError(
            f"the model has no adapter {name!r}, but {', '.join(adapters(model)) or 'none at all'}"
        )
    matrices = {
        f"{PREFIX}{key}.lora_{side}.weight": getattr(update, side).detach().cpu().contiguous()
        for key, update in layers.items()
        for side in "AB"
    }
    with written_aside(Path(folder).expanduser()) as scratch:
        save_file(matrices, scratch / WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(_config(layers, base), indent=2, sort_keys=True) + "\n"
        (scratch / CONFIG).write_text(text, encoding="utf-8", newline="\n")
        shutil.copymode(scratch / CONFIG, scratch / WEIGHTS)


def load_adapter(model: GPT2, folder: str | Path, name: str = DEFAULT) -> None:
    """Give the model the adapter that a folder holds, and use it.

    Raises:
        CheckpointError: The folder holds no adapter, a damaged one, or one of another model.
        ConfigError: It is of a kind that we do not have.
    """
    folder = Path(folder).expanduser()
    said = _read_config(folder)
    matrices = _read_matrices(folder / WEIGHTS)
    blocks = {match[1] for match in map(_KEY.fullmatch, matrices) if match}
    targets = {match[2] for match in map(_KEY.fullmatch, matrices) if match}
    config = LoraConfig(
        r=said["r"],
        alpha=said["lora_alpha"],
        dropout=said.get("lora_dropout") or 0.0,
        targets=tuple(target for target in TARGETS if target in targets),
    )
    expected = {f"{block}.{target}.lora_{side}.weight"
                for block in (f"h.{number}" for number in range(model.config.n_layer))
                for target in config.targets for side in "AB"}  # fmt: skip
    if set(matrices) != expected:
        odd = sorted(set(matrices) ^ expected)[0]
        raise CheckpointError(
            f"{folder / WEIGHTS} has {len(matrices)} matrices for {len(blocks)} blocks, the model "
            f"wants {len(expected)} for {model.config.n_layer} (such as {odd}): is it of another?"
        )
    _check_shapes(model, matrices, config, folder / WEIGHTS)
    add_adapter(model, config, name)
    with torch.no_grad():
        for key, layer in adapted(model):
            update = layer.adapters[name]
            for side in "AB":
                getattr(update, side).copy_(matrices[f"{key}.lora_{side}.weight"])


def base_of(folder: str | Path) -> str | None:
    """The name of the model that a folder's adapter belongs to; None if the folder holds none."""
    folder = Path(folder).expanduser()
    if not (folder / CONFIG).is_file():
        return None
    return _read_config(folder).get("base_model_name_or_path") or ""


def only_adapter_in(folder: Path | None) -> str | None:
    """The base of a folder that holds an adapter and no model of its own; ``None`` for any other.

    Raises:
        CheckpointError: The folder does not name the base.
    """
    if folder is None or (folder / "config.json").is_file() or (base := base_of(folder)) is None:
        return None
    if not base:
        raise CheckpointError(
            f"{folder / CONFIG} does not name the model that the adapter belongs to: write it "
            "there as base_model_name_or_path, or load the model and then the adapter"
        )
    return base


def _config(layers: dict[str, LowRank], base: str) -> dict[str, Any]:
    update = next(iter(layers.values()))
    targets = [target for target in TARGETS if any(key.endswith(target) for key in layers)]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": update.A.size(0),
        "lora_alpha": update.scale * update.A.size(0),
        "lora_dropout": update.dropout,
        "target_modules": targets,
        "fan_in_fan_out": True,  # GPT-2's layers in transformers are (in, out)
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
    }


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no adapter: it has no {CONFIG}")
    try:
        said = json.loads(read_text(path))
        r, alpha = said["r"], said["lora_alpha"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}): copy the folder again") from None
    if said.get("peft_type") != "LORA" or type(r) is not int or not isinstance(alpha, int | float):
        raise ConfigError(f"{path} describes {said.get('peft_type')!r} of rank {r!r}, not LoRA")
    for key, off in _UNSUPPORTED.items():
        if said.get(key, off[0]) not in off:
            raise ConfigError(
                f"{path} has {key} {said[key]!r}, which our adapters do not know: "
                f"merge it with PEFT, or train one with {key} {off[0]!r}"
            )
    return said


def _read_matrices(path: Path) -> dict[str, Tensor]:
    """The matrices, under our names."""
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): copy the folder again") from None
    for key in found:
        if not key.startswith(PREFIX) or not _KEY.fullmatch(key.removeprefix(PREFIX)):
            raise CheckpointError(f"{path} holds {key!r}, which is of no adapter of GPT-2")
    return {key.removeprefix(PREFIX): matrix for key, matrix in found.items()}


def _check_shapes(model: GPT2, matrices: dict[str, Tensor], config: LoraConfig, path: Path) -> None:
    for key, matrix in matrices.items():
        layer, side = key.split(".lora_")
        weight = model.get_parameter(f"{layer}.weight")
        wanted = (config.r, weight.size(1)) if side[0] == "A" else (weight.size(0), config.r)
        if tuple(matrix.shape) != wanted:
            raise CheckpointError(
                f"{key} in {path} is {tuple(matrix.shape)} and should be {wanted}: "
                "the adapter belongs to another model"
            )
