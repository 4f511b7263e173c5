"""``cleangpt2 pretrain``: train a model from scratch on text files or a prepared folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

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
    """Text or .jsonl files (a "text" in each line), packed or not; or, for text that memory does
    not hold, one folder made by `cleangpt2 data prepare`."""
    out: Path
    """Run folder; the same command with the same folder goes on where it stopped."""
    tokenizer: str | None = None
    """Whose vocabulary: a bundled model, a published size, a hub id, or a folder. If not given, a
    prepared folder's own, else that of "story"."""
    validation: Path | None = None
    """File of held-out texts, measured in bits per byte; a prepared folder brings its own."""
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
    from cleangpt2.model.pretrained import save
    from cleangpt2.report.page import write_report
    from cleangpt2.texts import read_all
    from cleangpt2.training.pretrain import pretrain
    from cleangpt2.training.runfolder import MODEL
    from cleangpt2.training.samples import unprompted
    from cleangpt2.training.shape import new_model
    from cleangpt2.training.validation import held_out_bits_per_byte

    check_writable(options.out)
    chosen = device.choose(options.device)
    tokenizer, tokens, held_out, sources = _read(options)
    model_config = new_model(
        tokenizer,
        n_layer=options.n_layer,
        n_head=options.n_head,
        n_embd=options.n_embd,
        n_positions=options.n_positions,
        dropout=options.dropout,
    )
    if options.validation:
        held_out = read_all([options.validation])
    print(f"{len(tokens):,} tokens; the run trains on {options.training.tokens:,}")
    model = pretrain(
        model_config,
        options.training,
        tokens,
        options.out,
        validate=(lambda m: held_out_bits_per_byte(m, tokenizer, held_out)) if held_out else None,
        sample=lambda m: unprompted(m, tokenizer),
        device=chosen,
        fresh=options.fresh,
    )
    folder = options.out / MODEL
    save(model, tokenizer, folder, made_by="pretrain", data=sources)
    print(f"curves and samples: {write_report([options.out])}")
    print(f'done; try: {terminal.command()} generate "Once upon a time" --model {folder}')


def _read(options: Options) -> tuple[Any, Any, list[str], Sequence[Path]]:
    """Tokenizer, tokens, held-out texts, and the files whose hashes tell what was trained on."""
    from cleangpt2.data.batches import pack
    from cleangpt2.data.corpus import Corpus, is_prepared
    from cleangpt2.data.index import INDEX
    from cleangpt2.hub import locate
    from cleangpt2.model.convert.tokenizers import tokenizer_of
    from cleangpt2.texts import read_all

    named = tokenizer_of(locate(options.tokenizer)) if options.tokenizer else None
    if not any(map(is_prepared, options.files)):
        tokenizer = named or tokenizer_of(locate("story"))
        return tokenizer, pack(read_all(options.files), tokenizer), [], options.files
    if len(options.files) > 1:
        raise ConfigError(
            f"{len(options.files)} files and folders, and one of them is prepared: name one "
            "prepared folder alone, or prepare all texts into one"
        )
    corpus = Corpus(options.files[0], named)
    tokenizer = corpus.tokenizer()
    return tokenizer, corpus.train, corpus.held_out(tokenizer), [corpus.folder / INDEX]
