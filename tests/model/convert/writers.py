"""Writers of other programs' files, made from those programs' own code and format descriptions.

They share nothing with the readers in ``cleangpt2/model/convert``: names, layouts and checksums
are written down here once more, so that a mistake there cannot hide itself.
"""

import json
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cleangpt2.model.gpt2 import GPT2

# ---- TensorFlow --------------------------------------------------------------------------------

TF_TYPES = {"float32": 1, "float64": 2, "int32": 3, "int8": 6, "int64": 9, "float16": 19}


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit, as its definition has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def mask(crc: int) -> bytes:
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32)


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def block(pairs: list[tuple[bytes, bytes]], restart_every: int) -> bytes:
    """One block of LevelDB's table, with its trailer."""
    body, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number % restart_every == 0:
            restarts.append(len(body))
        else:
            while shared < min(len(before), len(key)) and before[shared] == key[shared]:
                shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value))
        body += key[shared:] + value
        before = key
    restarts = restarts or [0]
    body += struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))
    return body + b"\0" + mask(crc32c(body + b"\0"))


def table(pairs: list[tuple[bytes, bytes]], *, per_block: int = 7, restart_every: int = 3) -> bytes:
    """LevelDB's table of sorted pairs."""
    out, handles = b"", []
    for start in range(0, len(pairs), per_block):
        part = block(pairs[start : start + per_block], restart_every)
        handles.append((pairs[start : start + per_block][-1][0], (len(out), len(part) - 5)))
        out += part
    meta = block([], 1)
    meta_at, out = len(out), out + meta
    index = block([(key, varint(at) + varint(size)) for key, (at, size) in handles], 1)
    index_at, out = len(out), out + index
    footer = varint(meta_at) + varint(len(meta) - 5) + varint(index_at) + varint(len(index) - 5)
    return out + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def entry(array: np.ndarray, shard: int, offset: int) -> bytes:
    """A ``BundleEntryProto``."""
    shape = b"".join(
        b"\x12" + varint(1 + len(varint(n))) + b"\x08" + varint(n) for n in array.shape
    )
    fields = b"\x08" + varint(TF_TYPES[array.dtype.name])
    fields += b"\x12" + varint(len(shape)) + shape
    fields += (b"\x18" + varint(shard) if shard else b"") + (b"\x20" + varint(offset))
    return fields + b"\x28" + varint(array.nbytes) + b"\x35" + mask(crc32c(array.tobytes()))


def write_bundle(prefix: Path, arrays: dict[str, np.ndarray], *, shards: int = 1, **blocks) -> None:
    """``prefix.index`` and its data files, the tensors dealt out among them in turn."""
    data = [b""] * shards
    header = b"\x08" + varint(shards) + b"\x1a\x02\x08\x01"  # version {producer: 1}
    pairs = [(b"", header)]
    for number, name in enumerate(sorted(arrays)):
        shard = number % shards
        pairs.append((name.encode(), entry(arrays[name], shard, len(data[shard]))))
        data[shard] += arrays[name].tobytes()
    prefix.with_name(prefix.name + ".index").write_bytes(table(pairs, **blocks))
    for shard, content in enumerate(data):
        name = f"{prefix.name}.data-{shard:05d}-of-{shards:05d}"
        prefix.with_name(name).write_bytes(content)


def openai_variables(model: GPT2) -> dict[str, np.ndarray]:
    """The weights under the names and in the shapes of openai/gpt-2's ``src/model.py``."""
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}

    def norm(ours: str) -> dict[str, Tensor]:
        return {"g": weights[f"{ours}.weight"], "b": weights[f"{ours}.bias"]}

    def conv1d(ours: str) -> dict[str, Tensor]:  # w is (1, in, out)
        return {"w": weights[f"{ours}.weight"].t()[None], "b": weights[f"{ours}.bias"]}

    scopes = {"model/ln_f": norm("ln_f")}
    for layer in range(model.config.n_layer):
        here, there = f"h.{layer}", f"model/h{layer}"
        for name in ("ln_1", "ln_2"):
            scopes[f"{there}/{name}"] = norm(f"{here}.{name}")
        for room, name in (
            ("attn", "c_attn"),
            ("attn", "c_proj"),
            ("mlp", "c_fc"),
            ("mlp", "c_proj"),
        ):
            scopes[f"{there}/{room}/{name}"] = conv1d(f"{here}.{room}.{name}")
    found = {f"{scope}/{name}": t for scope, parts in scopes.items() for name, t in parts.items()}
    found |= {"model/wte": weights["wte.weight"], "model/wpe": weights["wpe.weight"]}
    return {name: tensor.contiguous().numpy() for name, tensor in found.items()}


def write_hparams(folder: Path, model: GPT2) -> None:
    config = model.config
    numbers = {
        "n_vocab": config.vocab_size,
        "n_ctx": config.n_positions,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
        "n_layer": config.n_layer,
    }
    (folder / "hparams.json").write_text(json.dumps(numbers), encoding="utf-8")


def write_tensorflow(
    folder: Path,
    model: GPT2,
    *,
    prefix: str = "model.ckpt",
    extra: dict[str, np.ndarray] | None = None,
    shards: int = 1,
    **blocks,
) -> None:
    """A folder as ``download_model.py`` leaves it, but for the graph and the vocabulary."""
    folder.mkdir(exist_ok=True)
    write_hparams(folder, model)
    state = f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n'
    (folder / "checkpoint").write_text(state, encoding="utf-8")
    arrays = openai_variables(model) | (extra or {})
    write_bundle(folder / prefix, arrays, shards=shards, **blocks)


# ---- nanoGPT -----------------------------------------------------------------------------------


def nanogpt_checkpoint(model: GPT2, *, bias: bool = True, compiled: bool = False, **extra) -> dict:
    """What nanoGPT's ``train.py`` saves for the function that `model` computes."""
    config = model.config
    prefix = "_orig_mod." if compiled else ""
    weights = {
        f"{prefix}transformer.{name}": tensor.detach().clone()
        for name, tensor in model.named_parameters()
        if bias or not name.endswith("bias")
    }
    weights[f"{prefix}lm_head.weight"] = weights[f"{prefix}transformer.wte.weight"]
    args = {
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "block_size": config.n_positions,
        "bias": bias,
        "vocab_size": config.vocab_size,
        "dropout": 0.1,
    }
    moments = {number: {"exp_avg": tensor * 0} for number, tensor in enumerate(weights.values())}
    return {
        "model": weights,
        "optimizer": {"state": moments, "param_groups": [{"lr": 6e-4, "betas": (0.9, 0.95)}]},
        "model_args": args | extra,
        "iter_num": 2000,
        "best_val_loss": torch.tensor(3.28),
        "config": {"dataset": "openwebtext", "compile": compiled},
    }


# ---- llm.c -------------------------------------------------------------------------------------


def write_llmc(path: Path, model: GPT2, *, version: int = 3, multiple: int = 128) -> None:
    """What ``write_model`` of llm.c's ``train_gpt2.py`` writes."""
    config = model.config
    V = config.vocab_size
    padded = -(-V // multiple) * multiple
    header = np.zeros(256, dtype=np.int32)
    header[:8] = (
        20240326, version, config.n_positions, V,
        config.n_layer, config.n_head, config.n_embd, padded,
    )  # fmt: skip
    weights = dict(model.named_parameters())
    wte = torch.nn.functional.pad(weights["wte.weight"].detach(), (0, 0, 0, padded - V), value=7.0)
    modules = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    kinds = [f"{module}.{part}" for module in modules for part in ("weight", "bias")]
    order = [weights[f"h.{i}.{kind}"] for kind in kinds for i in range(config.n_layer)]
    tensors = [wte, weights["wpe.weight"], *order, weights["ln_f.weight"], weights["ln_f.bias"]]
    with path.open("wb") as file:
        file.write(header.tobytes())
        for tensor in tensors:
            tensor = tensor.detach().contiguous()
            if version == 5:
                file.write(tensor.bfloat16().view(torch.int16).numpy().tobytes())
            else:
                file.write(tensor.numpy().tobytes())
