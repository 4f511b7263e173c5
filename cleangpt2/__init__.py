"""GPT-2 from its first byte to its last reward.

    import cleangpt2 as cg
    model, tok = cg.load("story")
    print(cg.generate(model, tok, "Once upon a time", max_new_tokens=60, seed=1).text)

The names below are imported when they are first used, so that ``import cleangpt2`` and
``cleangpt2 --help`` cost nothing: torch alone takes seconds.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleangpt2.completion import (
        Completion,
        beam_search,
        contrastive_search,
        generate,
        stream,
    )
    from cleangpt2.errors import CleanGPT2Error
    from cleangpt2.model.config import GPT2Config
    from cleangpt2.model.gpt2 import GPT2
    from cleangpt2.model.pretrained import load, save
    from cleangpt2.tokenizer import Tokenizer

__version__ = "0.1.0"

_HOMES = {
    "Completion": "cleangpt2.completion",
    "beam_search": "cleangpt2.completion",
    "contrastive_search": "cleangpt2.completion",
    "generate": "cleangpt2.completion",
    "stream": "cleangpt2.completion",
    "CleanGPT2Error": "cleangpt2.errors",
    "GPT2Config": "cleangpt2.model.config",
    "GPT2": "cleangpt2.model.gpt2",
    "load": "cleangpt2.model.pretrained",
    "save": "cleangpt2.model.pretrained",
    "Tokenizer": "cleangpt2.tokenizer",
}

__all__ = [
    "GPT2",
    "CleanGPT2Error",
    "Completion",
    "GPT2Config",
    "Tokenizer",
    "__version__",
    "beam_search",
    "contrastive_search",
    "generate",
    "load",
    "save",
    "stream",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cleangpt2' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
