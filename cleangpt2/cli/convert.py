"""``cleangpt2 convert``: whatever model can be read becomes a folder, shown to be the same."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from cleangpt2.cli import terminal
from cleangpt2.errors import OfflineError, TokenizerError

if TYPE_CHECKING:
    from cleangpt2.model.convert.conversion import Conversion
    from cleangpt2.tokenizer import Tokenizer

EXAMPLE = """
    cleangpt2 convert nanoGPT/out/ckpt.pt my-model
    cleangpt2 convert models/124M gpt2-folder
    cleangpt2 convert llm.c/gpt2_124M_bf16.bin gpt2-folder --dtype float32
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to convert, and to where."""

    source: tyro.conf.Positional[str]
    """A nanoGPT ckpt.pt, an llm.c .bin, an OpenAI TensorFlow folder, or any other model."""
    to: tyro.conf.Positional[Path]
    """Folder for config.json, model.safetensors and the tokenizer's files."""
    dtype: str = "auto"
    """Type of the stored weights: auto (as in the source), float32, bfloat16, float16."""
    tokenizer: str | None = None
    """Whose vocabulary goes with it: a model's name or a folder; by default the source's own."""
    activation: str | None = None
    """GELU of a nanoGPT model, which its file does not say: gelu (exact, the default), or gelu_new
    (tanh form) where it was trained with nanoGPT from before June 2023."""
    fresh: bool = False
    """Replace the model that the folder holds."""
    json: bool = False
    """Print JSON instead of text."""


def run(options: Options) -> None:
    """Convert, and say how far the logits moved."""
    from tqdm import tqdm

    from cleangpt2.model.convert.conversion import convert

    tokenizer, without = _tokenizer(options)
    with tqdm(unit="step", disable=None, leave=False, file=sys.stderr) as bar:

        def show(what: str, step: int, total: int) -> None:
            bar.total = total
            bar.set_description(what)
            bar.update(step - bar.n)

        done = convert(
            options.source,
            options.to,
            dtype=options.dtype,
            tokenizer=tokenizer,
            activation=options.activation,
            fresh=options.fresh,
            progress=show,
        )
    if without:
        terminal.warn(f"the folder gets no tokenizer: {without}")
    if options.json:
        size = None if tokenizer is None else tokenizer.vocab_size
        found = dataclasses.asdict(done) | {"relative": done.relative, "tokenizer": size}
        print(json.dumps(found, indent=2))
    else:
        _describe(done, tokenizer)


def _tokenizer(options: Options) -> "tuple[Tokenizer | None, str]":
    """The tokenizer to write, or ``None`` and why the weights come without one."""
    from cleangpt2.hub import locate
    from cleangpt2.model.convert.tokenizers import tokenizer_of
    from cleangpt2.tokenizer.files import has_vocabulary

    if options.tokenizer is not None:
        return tokenizer_of(locate(options.tokenizer)), ""
    source = locate(options.source)
    try:
        return tokenizer_of(source), ""
    except (TokenizerError, OfflineError) as error:
        if source.repo is not None or has_vocabulary(source):
            raise
        return None, str(error)


def _describe(done: "Conversion", tokenizer: "Tokenizer | None") -> None:
    print(
        f"{done.kind} {done.source}: {done.tensors} tensors, {done.parameters:,} parameters, "
        f"stored as {done.dtype}"
    )
    print(
        f"largest difference of the logits: {done.difference:.3g}, relative {done.relative:.3g} "
        f"(on {done.tokens} tokens, logits up to {done.largest:.3g})"
    )
    print(terminal.paint(_verdict(done), "green"))
    command = f"{terminal.command()} generate --model {done.folder}"
    print(f"try: {command}" if tokenizer else f"written to {done.folder}, without a tokenizer")


def _verdict(done: "Conversion") -> str:
    """What the difference means."""
    if done.difference == 0:
        return "the same model: every logit is equal, bit for bit"
    if done.rounding:
        return f"the same model, rounded to {done.dtype}, which explains the difference"
    return "the same model, but for the order of sums in float32"
