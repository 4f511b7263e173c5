"""The tokenizer of a model, which other programs do not keep with its weights."""

from cleangpt2.errors import TokenizerError
from cleangpt2.hub import Source, locate
from cleangpt2.model.config import GPT2_VOCAB_SIZES
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.files import has_vocabulary, read_vocabulary


def tokenizer_of(source: Source) -> Tokenizer:
    """The tokenizer of a model: in its files, or GPT-2's own if it has as many tokens.

    torch is imported only for a checkpoint without a vocabulary beside it.

    Raises:
        TokenizerError: There is none, or its files are damaged.
        CleanGPT2Error: A file cannot be had; see ``Source.file``.
    """
    if source.repo is not None or has_vocabulary(source):
        return Tokenizer(read_vocabulary(source))
    from cleangpt2.model.convert.formats import find_checkpoint, open_model

    if find_checkpoint(source) is None:  # a folder without a tokenizer: says what it lacks
        return Tokenizer(read_vocabulary(source))
    with open_model(source) as opened:
        V = opened.config.vocab_size
    if V in GPT2_VOCAB_SIZES:
        return Tokenizer(read_vocabulary(locate("gpt2")))
    raise TokenizerError(
        f"{source.name!r} brings no tokenizer, and its {V:,} tokens are not GPT-2's: put a "
        "merges.txt beside it, or write a folder with `cleangpt2 convert --tokenizer FOLDER` "
        "(nanoGPT's meta.pkl is a pickle, which could run code, and is never opened)"
    )
