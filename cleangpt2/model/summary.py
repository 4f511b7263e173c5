"""What a model is made of: shapes, parameters of each part, memory.

Nothing here reads weights but `weight_differences`. Counts follow from the configuration, and a
test holds them equal to a model's; for a folder the headers of its weight files confirm them, and
only then is torch imported.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cleangpt2.hub import ALIASES, Source, locate
from cleangpt2.model.config import SIZES, GPT2Config

PARTS = ("token embedding", "position embedding", "attention", "MLP", "layer norms", "output")
"""The parts of a GPT-2, in the order the data meets them."""

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of one number; float16 takes as many as bfloat16."""

_ADAMW_NUMBERS = 4  # the weight, its gradient and two moments


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The weight files of a model on this machine."""

    files: tuple[str, ...]
    bytes: int
    dtypes: tuple[str, ...]
    tensors: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The figures of one model."""

    name: str
    origin: str
    """Where the figures come from, in words."""
    config: GPT2Config
    parameters: dict[str, int]
    """Part -> number of parameters; a tied output has none of its own."""
    stored: Stored | None
    """Its weights, where they are on this machine."""

    @property
    def total(self) -> int:
        """Parameters of the whole model."""
        return sum(self.parameters.values())

    def shapes(self) -> dict[str, str]:
        """Part -> its shapes in words; the biases go without saying."""
        c = self.config
        C, L = f"{c.n_embd:,}", f"{c.n_layer:,}"
        tied = "tied to the token embedding"
        return {
            "token embedding": f"{c.vocab_size:,} x {C}",
            "position embedding": f"{c.n_positions:,} x {C}",
            "attention": f"{L} x ({C} -> {3 * c.n_embd:,}, {C} -> {C})",
            "MLP": f"{L} x ({C} -> {c.mlp_width:,} -> {C})",
            "layer norms": f"{2 * c.n_layer + 1:,} x {C}",
            "output": tied if c.tie_word_embeddings else f"{C} -> {c.vocab_size:,}",
        }

    def memory(self) -> dict[str, dict[str, int]]:
        """What -> data type -> bytes. Activations come on top of it."""
        per_token = 2 * self.config.n_layer * self.config.n_embd  # a key and a value a layer
        halves = {dtype: BYTES[dtype] for dtype in ("float32", "bfloat16")}
        return {
            "weights": {dtype: self.total * size for dtype, size in BYTES.items()},
            "cache, one token": {dtype: per_token * size for dtype, size in halves.items()},
            "cache, full context": {
                dtype: per_token * size * self.config.n_positions for dtype, size in halves.items()
            },
            "training with AdamW": {"float32": self.total * _ADAMW_NUMBERS * BYTES["float32"]},
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "name": self.name,
            "origin": self.origin,
            "config": self.config.to_dict(),
            "parameters": self.parameters | {"total": self.total},
            "memory_bytes": self.memory(),
            "stored": None if self.stored is None else asdict(self.stored),
        }


def summarise(name: str | Path) -> Summary:
    """The figures of a model, by name, hub id or folder.

    The published sizes need no file at all; another hub id that is not on this machine costs the
    download of its ``config.json``.

    Raises:
        ModelNotFoundError: No such model.
        OfflineError: ``config.json`` has to be downloaded and the hub cannot be reached.
        CheckpointError: Weight files that are damaged or that do not fit ``config.json``.
    """
    source = locate(name)
    published = _published_size(source)
    if published and source.local("config.json") is None:
        config, stored = SIZES[published], None
        origin = "the table of published sizes"
    else:
        config, stored, origin = _look_into(source)
    origin += " and the headers of the weight files" if stored else "; no weights on this machine"
    return Summary(
        name=source.name, origin=origin, config=config, parameters=parameters(config), stored=stored
    )


def parameters(config: GPT2Config) -> dict[str, int]:
    """Part -> number of parameters; a tied output has none of its own.

    >>> sum(parameters(SIZES["gpt2"]).values())
    124439808
    """
    C, M, L, V = config.n_embd, config.mlp_width, config.n_layer, config.vocab_size
    return {
        "token embedding": V * C,
        "position embedding": config.n_positions * C,
        "attention": L * ((C + 1) * 3 * C + (C + 1) * C),  # a bias for every output
        "MLP": L * ((C + 1) * M + (M + 1) * C),
        "layer norms": (2 * L + 1) * 2 * C,
        "output": 0 if config.tie_word_embeddings else V * C,
    }


def part_of(name: str) -> str:
    """The part that a parameter belongs to.

    >>> part_of("h.3.attn.c_proj.bias"), part_of("h.3.ln_2.weight"), part_of("wte.weight")
    ('attention', 'layer norms', 'token embedding')
    """
    if name.startswith("h."):
        room = name.split(".")[2]
        return {"attn": "attention", "mlp": "MLP"}.get(room, "layer norms")
    return {
        "wte": "token embedding",
        "wpe": "position embedding",
        "ln_f": "layer norms",
        "lm_head": "output",
    }[name.split(".")[0]]


def show_bytes(number: int) -> str:
    """A size in decimal units, as disks and downloads count.

    >>> show_bytes(73_728), show_bytes(497_759_232), show_bytes(6_230_444_800)
    ('73.7 kB', '497.8 MB', '6.23 GB')
    """
    if number >= 1e9:
        return f"{number / 1e9:.2f} GB"
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"


def weight_differences(name: str | Path, other: str | Path) -> dict[str, float | None] | None:
    """Part -> largest difference between two models' weights, ``None`` where shapes differ.

    Reads both models tensor by tensor. ``None`` in all if either has no weights on this machine.
    """
    from cleangpt2.model.convert.formats import open_model
    from cleangpt2.model.matching import match

    sources = locate(name), locate(other)
    if not all(map(_on_this_machine, sources)):
        return None
    with open_model(sources[0], local=True) as first, open_model(sources[1], local=True) as second:
        ours, theirs = match(first, sources[0].name), match(second, sources[1].name)
        largest: dict[str, float | None] = {}
        for key in sorted(ours.keys() | theirs.keys()):
            part = part_of(key)
            one, other_one = ours.get(key), theirs.get(key)
            if one is None or other_one is None or one.weight_shape != other_one.weight_shape:
                largest[part] = None
            elif (so_far := largest.get(part, 0.0)) is not None:
                gap = (one.weight().float() - other_one.weight().float()).abs().max()
                largest[part] = max(so_far, float(gap))
    return {part: largest[part] for part in PARTS if part in largest}


def _published_size(source: Source) -> str | None:
    return next((size for size, repo in ALIASES.items() if repo == source.repo), None)


def _on_this_machine(source: Source) -> bool:
    from cleangpt2.model.convert.formats import find_checkpoint
    from cleangpt2.model.weights import weight_files

    return find_checkpoint(source) is not None or bool(weight_files(source, local=True))


def _look_into(source: Source) -> tuple[GPT2Config, Stored | None, str]:
    """The configuration, the weights that are on this machine, and where the former stands."""
    from cleangpt2.model.convert.formats import find_checkpoint, open_model
    from cleangpt2.model.matching import match

    config_json = source.local("config.json") or "config.json on the hub"
    with open_model(source, local=True) as opened:
        origin = f"the {opened.described_by} of a {opened.kind}"
        if find_checkpoint(source) is None:
            origin = str(config_json)
        if not opened.files:
            return opened.config, None, origin
        match(opened, source.name)
        dtypes = {str(t.dtype).removeprefix("torch.") for t in opened.tensors.values()}
        stored = Stored(
            files=tuple(path.name for path in opened.files),
            bytes=sum(path.stat().st_size for path in opened.files),
            dtypes=tuple(sorted(dtypes)),
            tensors=len(opened.tensors),
        )
        return opened.config, stored, origin
