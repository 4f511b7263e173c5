"""Tiny Shakespeare from nothing, in three minutes on the CPU of a laptop.

    python -m cleangpt2.recipes.shakespeare --data input.txt --out runs/shakespeare
    python -m cleangpt2 generate "ROMEO:" --model runs/shakespeare/model

Everyone's first language model (Karpathy, 2015, "char-rnn"): a megabyte of plays, read letter by
letter. The file is 1,115,394 characters long, and this downloads nothing; it is to be had from

    https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt

The first nine tenths are trained on and the last tenth is held out, as in nanoGPT. A token is a
byte here, so a loss per token is one per character, and compares with nanoGPT's.

    size     layers x width   context   steps x batch   nanoGPT reached (its README)
    laptop   4 x 128          64        2000 x 12       1.88 nats per character, 3 minutes
    gpu      6 x 384          256       5000 x 64       1.4697 at its best, 3 minutes on an A100

Shapes, batches and steps are nanoGPT's. Here Muon moves the matrices, with a warm-up, a plateau and
a linear decay; `--optimizer adamw` takes nanoGPT's optimiser and schedule instead. Run by the
authors of this package, in size "laptop": 1.62 with Muon, 1.87 with nanoGPT's settings.
"""

import dataclasses
import math
from pathlib import Path

from cleangpt2.data.batches import pack
from cleangpt2.errors import DataError
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.pretrained import save
from cleangpt2.recipes.options import changed, in_one_line, parser
from cleangpt2.texts import read_all
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.pretrain import pretrain
from cleangpt2.training.runfolder import MODEL
from cleangpt2.training.runtime import start
from cleangpt2.training.samples import unprompted
from cleangpt2.training.shape import new_model
from cleangpt2.training.validation import held_out_bits_per_byte

TRAINED_SHARE = 0.9
"""Of the file's characters; the rest is held out."""

BYTES = 257
"""Every byte and an end-of-text token: no pair is merged."""

SHAPES = {"laptop": (4, 4, 128, 0.0), "gpu": (6, 6, 384, 0.2)}  # n_layer, n_head, n_embd, dropout

TRAINING = {
    "laptop": PretrainConfig(
        steps=2000, batch_size=12, context=64, lr=3e-3, muon_lr=1e-2, eval_every=500
    ),
    # The corpus is seen 80 times, so the best model is not the last one.
    "gpu": PretrainConfig(
        steps=5000, batch_size=64, context=256, lr=1e-3, muon_lr=4e-3, precision="bf16",
        eval_every=250, keep_best=True,
    ),
}  # fmt: skip

NANOGPT = {
    "optimizer": "adamw", "lr": 1e-3, "beta2": 0.99, "weight_decay": 0.1, "warmup": 100,
    "schedule": "cosine", "final_lr": 0.1,
}  # fmt: skip
"""What nanoGPT's ``config/train_shakespeare_char.py`` sets, in our names."""


def split(text: str) -> tuple[str, str]:
    """The part to train on, and the held-out part.

    >>> split("To be, or ")
    ('To be, or', ' ')
    """
    cut = int(TRAINED_SHARE * len(text))
    return text[:cut], text[cut:]


def model_config(size: str, tokenizer: Tokenizer) -> GPT2Config:
    """The shape; its positions are as many as the context of training."""
    n_layer, n_head, n_embd, dropout = SHAPES[size]
    return new_model(
        tokenizer,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        n_positions=TRAINING[size].context,
        dropout=dropout,
    )


def train(
    data: Path,
    out: Path,
    *,
    size: str = "laptop",
    config: PretrainConfig | None = None,
    device: str = "cpu",
    fresh: bool = False,
) -> float:
    """Train on the file `data`, leave the model in ``out/model``; return nats per character.

    Args:
        config: Other settings than ``TRAINING[size]``.

    Raises:
        DataError: The file cannot be read, or is too short to hold something out.
    """
    with start(device) as runtime:
        with runtime.together():
            text, held_out = split("".join(read_all([data])))
            if not held_out.strip():
                raise DataError(f"{data} is too short to hold a tenth out: give the whole text")
            tokenizer = Tokenizer.train([text], BYTES, special_tokens=("<|endoftext|>",))
        model = pretrain(
            model_config(size, tokenizer),
            config or TRAINING[size],
            pack([text], tokenizer),
            out,
            validate=lambda model: held_out_bits_per_byte(
                model, tokenizer, [held_out], runtime=runtime
            ),
            sample=lambda model: unprompted(model, tokenizer),
            device=runtime.device,
            fresh=fresh,
        )
        with runtime.together():
            if runtime.is_main:
                save(model, tokenizer, out / MODEL, made_by="recipes/shakespeare", data=[data])
        return nats_per_character(held_out_bits_per_byte(model, tokenizer, [held_out]), held_out)


def nats_per_character(bits_per_byte: float, text: str) -> float:
    """The unit of nanoGPT's losses.

    >>> round(nats_per_character(2.0, "thou"), 4), round(nats_per_character(2.0, "ü"), 4)
    (1.3863, 2.7726)
    """
    return bits_per_byte * math.log(2) * len(text.encode()) / len(text)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and train."""
    flags = parser(__doc__, "shakespeare")
    flags.add_argument("--data", type=Path, required=True, help="the text file")
    flags.add_argument("--size", choices=list(TRAINING), default="laptop")
    flags.add_argument("--optimizer", choices=["muon", "adamw"], default="muon",
                       help="adamw: nanoGPT's optimiser and schedule")  # fmt: skip
    options = flags.parse_args(arguments)
    config = TRAINING[options.size]
    if options.optimizer == "adamw":
        config = dataclasses.replace(config, **NANOGPT)
    config = changed(config, options)
    with start(options.device) as runtime:
        nats = train(
            options.data,
            options.out,
            size=options.size,
            config=config,
            device=str(runtime.device),
            fresh=options.fresh,
        )
        if runtime.is_main:
            print(f"{nats:.4f} nats per character of the held-out tenth; in {options.out / MODEL}")


if __name__ == "__main__":
    in_one_line(main)
