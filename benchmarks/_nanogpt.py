"""A GPT-2 and its training step in the style of nanoGPT (Karpathy, 2022), to compare with.

Written anew in that manner: plain modules, ``F.linear``, PyTorch's fused causal attention, all
logits at once, ``F.cross_entropy``, and AdamW fused on a GPU alone. Parameters have the names of
our model's. Weight decay falls on the matrices of the blocks, as ours does, so that both do the
same arithmetic; nanoGPT decays the embeddings too.

Letters: B sequences, T tokens, C = n_embd, V = vocab_size.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cleangpt2.model.config import GPT2Config


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        heads = (t.view(B, T, self.n_head, -1) for t in self.c_attn(x).split(C, dim=2))
        q, k, v = (t.transpose(1, 2) for t in heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class MLP(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and MLP, each added to the stream."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    """The model, which gives the mean loss."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """(B, T), (B, T) -> ()."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.size(1), device=ids.device))
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)  # (B, T, V)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1))


class Training:
    """One optimiser step after the other."""

    def __init__(self, model: NanoGPT, lr: float, *, device: str, bf16: bool) -> None:
        self.device, self.bf16 = device, bf16
        self.weights = list(model.parameters())
        decayed = [p for p in model.h.parameters() if p.ndim == 2]
        ids = {id(p) for p in decayed}
        groups = [
            {"params": decayed, "weight_decay": 0.1},
            {"params": [p for p in self.weights if id(p) not in ids], "weight_decay": 0.0},
        ]
        on_gpu = device.startswith("cuda")
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=on_gpu)
        self.model = torch.compile(model) if on_gpu else model

    def step(self, parts: list[tuple[Tensor, Tensor]]) -> float:
        """Train on the parts of a batch, all as large; the mean loss."""
        total = 0.0
        for ids, targets in parts:
            with self.precision():
                loss = self.model(ids.to(self.device), targets.to(self.device)) / len(parts)
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def precision(self) -> AbstractContextManager:
        """Autocast, if asked for."""
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16) if self.bf16 else nullcontext()
