"""``cleangpt2 pretrain``: train a model from scratch on text files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cleangpt2.cli import terminal
from cleangpt2.errors import ConfigError
from cleangpt2.files import check_writable
from cleangpt2.training.config import PretrainConfig

EXAMPLE = """
    cleangpt2 tokenizer train stories.jsonl --vocab-size 4096 --out vocabulary
    cleangpt2 pretrain stories.jsonl --tokenizer vocabulary --out runs/first --steps 2000
    cleangpt2 generate "Once upon a time" --model runs/first/model
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which texts, which model, and how to train."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Text or .jsonl files (a "text" in each line), gzipped or not."""
    out: Path
    """Run folder; the same command with the same folder goes on where it stopped."""
    tokenizer: str = "story"
    """Whose vocabulary: a bundled model, a published size, a hub id, or a folder."""
    validation: Path | None = None
    """File of held-out texts, measured in bits per byte."""
    n_layer: int = 6
    """Blocks of the model."""
    n_head: int = 4
    """Attention heads of each block."""
    n_embd: int = 256
    """Width of the residual stream."""
    n_positions: int = 512
    """Longest context of the model."""
    dropout: float = 0.0
    """Dropout on embeddings and residuals (on attention weights it would cost the fast kernel)."""
    training: Annotated[PretrainConfig, tyro.conf.arg(name="")] = PretrainConfig()
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    fresh: bool = False
    """Remove the run that the folder holds and start anew."""
    config: Path | None = None
    """TOML file with any of these settings; flags win over it."""


def run(options: Options) -> None:
    """Train, and leave a model folder in ``<out>/model``."""
    if not options.files:
        raise ConfigError("no files to train on: name at least one text or .jsonl file")

    from cleangpt2 import device
    from cleangpt2.data.batches import pack
    from cleangpt2.model.pretrained import save_model
    from cleangpt2.texts import read_all
    from cleangpt2.tokenizer import Tokenizer
    from cleangpt2.training.pretrain import pretrain
    from cleangpt2.training.runfolder import MODEL
    from cleangpt2.training.shape import new_model
    from cleangpt2.training.validation import held_out_bits_per_byte

    check_writable(options.out)
    chosen = device.choose(options.device)
    tokenizer = Tokenizer.from_pretrained(options.tokenizer)
    model_config = new_model(
        tokenizer,
        n_layer=options.n_layer,
        n_head=options.n_head,
        n_embd=options.n_embd,
        n_positions=options.n_positions,
        dropout=options.dropout,
    )
    held_out = read_all([options.validation]) if options.validation else []
    tokens = pack(read_all(options.files), tokenizer)
    print(f"{len(tokens):,} tokens; the run trains on {options.training.tokens:,}")
    model = pretrain(
        model_config,
        options.training,
        tokens,
        options.out,
        validate=(lambda m: held_out_bits_per_byte(m, tokenizer, held_out)) if held_out else None,
        device=chosen,
        fresh=options.fresh,
    )
    folder = options.out / MODEL
    save_model(model, folder)
    tokenizer.save(folder)
    print(f'done; try: {terminal.command()} generate "Once upon a time" --model {folder}')
