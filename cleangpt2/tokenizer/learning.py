"""From a corpus to a vocabulary of a given size."""

import importlib
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

from cleangpt2.errors import TokenizerError
from cleangpt2.texts import read_texts
from cleangpt2.tokenizer import bpe
from cleangpt2.tokenizer.vocabulary import Vocabulary

_BULK = 1 << 22  # characters from which gigatoken pays: it starts slowly


def learn_vocabulary(
    texts: str | Path | Iterable[str | Path],
    vocab_size: int,
    special_tokens: Sequence[str],
    progress: Callable[[int], object] | None = None,
) -> Vocabulary:
    """Learn as many merges as ``vocab_size`` leaves room for; see ``Tokenizer.train``."""
    Vocabulary.from_merges((), special_tokens)  # refuses bad special tokens before the work
    try:
        vocab_size = operator.index(vocab_size)
    except TypeError:
        raise TokenizerError(
            f"vocab_size must be a whole number, like 4096, not {vocab_size!r}"
        ) from None
    n_merges = vocab_size - 256 - len(special_tokens)
    if n_merges < 0:
        raise TokenizerError(
            f"vocab_size {vocab_size} is too small: 256 bytes and {len(special_tokens)} special "
            f"tokens need {256 + len(special_tokens)}"
        )
    documents = _documents(texts)
    fast = fast_module(sum(map(len, documents)))
    merges = fast.train(documents, n_merges) if fast else None
    if merges is None:
        merges = bpe.train(documents, n_merges, progress=progress)
    if len(merges) < n_merges:
        raise TokenizerError(
            f"vocab_size {vocab_size} is too large: after {len(merges)} merges every piece of this "
            f"corpus is one token; give more text, or a vocab_size of at most "
            f"{256 + len(merges) + len(special_tokens)}"
        )
    return Vocabulary.from_merges(merges, special_tokens)


def _documents(texts: str | Path | Iterable[str | Path]) -> list[str]:
    """The texts, and those of the files among them."""
    is_one = isinstance(texts, str | bytes | Path) or not isinstance(texts, Iterable)
    documents: list[str] = []
    for item in [texts] if is_one else texts:
        if isinstance(item, Path):
            documents.extend(read_texts(item))
        elif isinstance(item, str):
            documents.append(item)
        else:
            kind = type(item).__name__
            raise TokenizerError(f"a corpus is made of texts (str) and files (Path), not of {kind}")
    return documents


def fast_module(n_characters: int) -> ModuleType | None:
    """The module ``fast`` of this room, where its extra is installed and the work is enough."""
    if n_characters < _BULK:
        return None
    try:
        return importlib.import_module("cleangpt2.tokenizer.fast")
    except ImportError:
        return None
