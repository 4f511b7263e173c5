"""Logits of the next token, read through a key/value cache and a window over the newest tokens.

The model sees at most ``n_positions`` tokens. What it sees of a longer sequence is its window,
whose start depends on the sequence's length alone, so that neither the batch nor the way to it
changes a token:

- "slide": the newest ``n_positions`` tokens. Every token moves the window, and with it all
  positions, so nothing can be kept: each token costs a whole window, as without a cache.
- "slide-fast": a full window forgets its older half, the rest is read anew, and the cache goes on
  from there. Half a window read for each half written is about one token more for each new one;
  in exchange the model sees between a half and all of its context.

Letters: B rows, T tokens, V vocabulary, C channels.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cleangpt2.model.cache import KVCache
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sampler.config import PastContext


class Context:
    """What B growing sequences are to the model.

    Example: two prompts, a token for each, then three for the second alone (beams, say).

        context = Context(model)
        logits = context.logits([[5, 6], [7]])
        logits = context.logits([[5, 6, 1], [7, 2]])
        logits = context.logits([[7, 2, 8], [7, 2, 9], [7, 2, 3]], parents=[1, 1, 1])
    """

    def __init__(
        self, model: GPT2, *, past_context: PastContext = "stop", capacity: int | None = None
    ) -> None:
        """Nothing is read, and no memory taken, before the first `logits`.

        Args:
            past_context: A field of `SamplingConfig`: what becomes of a sequence that outgrows
                the context. With "stop" none may.
            capacity: Most tokens of a sequence that will be read; no more room is reserved.
        """
        self.model = model
        n = model.config.n_positions
        self._capacity = n if capacity is None else capacity
        # How many tokens a full window forgets at once; none where it must not slide.
        self._stride = {"stop": 0, "slide": 1, "slide-fast": n - n // 2}[past_context]
        self._cache: KVCache | None = None
        self._slots: dict[int, int] = {}  # the cache's row for each sequence that it holds

    def start(self, length: int) -> int:
        """The first token that the model sees of a sequence of this length.

        With 8 positions: "slide" starts 9 tokens at 1; "slide-fast" starts 9 to 12 at 4.
        """
        beyond = max(0, length - self.model.config.n_positions)
        return math.ceil(beyond / self._stride) * self._stride if self._stride else 0

    def logits(
        self, sequences: Sequence[Sequence[int]], parents: Sequence[int] | None = None
    ) -> Float[Tensor, "B V"]:
        """Logits after the last token of each sequence, in float32.

        Args:
            sequences: All ids of each, from the first on.
            parents: Which sequence of the last call each one continues, by one token. Left out,
                the same ones go on in the same order (and at the first call all are new).
        """
        with self.model.evaluating():
            return self.model.logits(self.hidden(sequences, parents)).float()

    def hidden(
        self, sequences: Sequence[Sequence[int]], parents: Sequence[int] | None = None
    ) -> Float[Tensor, "B C"]:
        """The final stream there, which the output layer makes logits of; see `logits`."""
        beyond = [row for row, ids in enumerate(sequences) if self._never_cached(ids)]
        inside = [row for row, ids in enumerate(sequences) if not self._never_cached(ids)]
        parts = []
        if not inside:
            self._cache = None  # rows only grow: none comes back
        elif self._cache is None:
            parts.append(self._begin([sequences[row] for row in inside]))
        else:
            came = inside if parents is None else [parents[row] for row in inside]
            slots = [self._slots[row] for row in came]
            parts.append(self._go_on([sequences[row] for row in inside], slots, self._cache))
        self._slots = {row: slot for slot, row in enumerate(inside)}
        if not beyond:
            return parts[0]
        windows = [self._window(sequences[row]) for row in beyond]
        parts.append(last_hidden(self.model, windows, None))
        place = {row: place for place, row in enumerate(inside + beyond)}
        return torch.cat(parts)[[place[row] for row in range(len(sequences))]]

    def _never_cached(self, ids: Sequence[int]) -> bool:
        """Whether every token from here on moves the window."""
        return self._stride == 1 and len(ids) > self.model.config.n_positions

    def _window(self, ids: Sequence[int]) -> Sequence[int]:
        return ids[self.start(len(ids)) :]

    def _begin(self, sequences: Sequence[Sequence[int]]) -> Float[Tensor, "B C"]:
        """Read every different prompt once, then copy its past to all that share it."""
        windows = [tuple(self._window(ids)) for ids in sequences]
        different = {window: slot for slot, window in enumerate(dict.fromkeys(windows))}
        self._cache = KVCache(
            self.model.config,
            len(different),
            like=self.model.wte.weight,
            capacity=max(self._capacity, *map(len, windows)),
        )
        hidden = last_hidden(self.model, list(different), self._cache)
        copies = [different[window] for window in windows]
        if len(different) < len(copies):
            self._cache.select(copies)
        return hidden[copies]

    def _go_on(
        self, sequences: Sequence[Sequence[int]], slots: list[int], cache: KVCache
    ) -> Float[Tensor, "B C"]:
        """Read the newest token alone; these slots of the cache hold what came before."""
        if slots != list(range(cache.B)):
            cache.select(slots)
        moved = [
            slot
            for slot, ids in enumerate(sequences)
            if self.start(len(ids)) > self.start(len(ids) - 1)
        ]
        if moved:
            # What stays of a window stands at other positions now, so it is read anew.
            windows = [self._window(sequences[slot])[:-1] for slot in moved]
            cache.replace(moved, self._reread(windows))
        newest = torch.tensor([ids[-1:] for ids in sequences], device=self.model.device)
        return self.model.hidden(newest, cache)[:, -1]

    def _reread(self, windows: list[Sequence[int]]) -> KVCache:
        cache = KVCache(
            self.model.config,
            len(windows),
            like=self.model.wte.weight,
            capacity=max(map(len, windows)),
        )
        last_hidden(self.model, windows, cache)
        return cache


def last_hidden(
    model: GPT2, sequences: Sequence[Sequence[int]], cache: KVCache | None
) -> Float[Tensor, "B C"]:
    """The final stream at the last token of each sequence; the cache, if any, then holds them all.

    Shorter rows are padded on the right, where causal attention cannot see the padding.
    """
    lengths = [len(ids) for ids in sequences]
    padded = [[*ids, *[0] * (max(lengths) - len(ids))] for ids in sequences]
    hidden = model.hidden(torch.tensor(padded, device=model.device), cache)
    if cache is not None:
        cache.set_lengths(lengths)
    return hidden[torch.arange(len(lengths)), torch.tensor(lengths) - 1]
