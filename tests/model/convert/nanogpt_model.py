"""The function that nanoGPT's ``model.py`` computes, in plain tensor operations."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nanogpt_logits(checkpoint: dict, ids: Tensor, *, approximate: str = "none") -> Tensor:
    """Logits (B, T, V) straight from what is under ``model`` and ``model_args``."""
    args = checkpoint["model_args"]
    weights = {k.replace("_orig_mod.", ""): v.float() for k, v in checkpoint["model"].items()}
    n_head = args["n_head"]

    def norm(x: Tensor, name: str) -> Tensor:
        w, b = weights[f"transformer.{name}.weight"], weights.get(f"transformer.{name}.bias")
        return F.layer_norm(x, w.shape, w, b, 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        w, b = weights[f"transformer.{name}.weight"], weights.get(f"transformer.{name}.bias")
        return x @ w.t() + (0 if b is None else b)

    B, T = ids.shape
    x = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][:T]
    for layer in range(args["n_layer"]):
        h = f"h.{layer}"
        qkv = linear(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn").split(args["n_embd"], dim=2)
        q, k, v = (t.view(B, T, n_head, -1).transpose(1, 2) for t in qkv)
        scores = q @ k.transpose(-2, -1) / (args["n_embd"] / n_head) ** 0.5
        scores = scores.masked_fill(torch.ones(T, T).tril() == 0, float("-inf"))
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(B, T, -1)
        x = x + linear(mixed, f"{h}.attn.c_proj")
        wide = F.gelu(linear(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc"), approximate=approximate)
        x = x + linear(wide, f"{h}.mlp.c_proj")
    return norm(x, "ln_f") @ weights["lm_head.weight"].t()
