"""Text in, text out, over the sampler, which knows only ids.

Start with ``generation``: prompts, stop strings, streaming. ``healing`` and ``bans`` are filters
that look at the bytes of tokens, ``search`` is beam and contrastive search.
"""

from cleangpt2.completion.completion import Completion, Delta
from cleangpt2.completion.generation import generate, stream, stream_all
from cleangpt2.completion.search import beam_search, contrastive_search

__all__ = [
    "Completion",
    "Delta",
    "beam_search",
    "contrastive_search",
    "generate",
    "stream",
    "stream_all",
]
