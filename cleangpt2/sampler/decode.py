"""From prompts to tokens, one step at a time; ids only, no text.

``Decoding`` is a small state machine over a batch: prompts are read once, then every
step adds one token to each row that is not finished. Rows may have different lengths and
finish at different times; what a row becomes does not depend on the others.

Letters: B rows at work, T tokens, V vocabulary.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cleangpt2.errors import ContextLengthError, InputError, SamplingError
from cleangpt2.model.cache import KVCache
from cleangpt2.model.gpt2 import GPT2, Ids
from cleangpt2.sampler import filters
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.noise import generator

FinishReason = Literal["stop", "length"]

MAX_ROWS = 4096
"""Most sequences of one `Decoding`; a slip in `num_samples` would ask for all memory there is."""


@dataclass(frozen=True, slots=True)
class Token:
    """One chosen token."""

    row: int
    """Which sequence it belongs to, in the order of prompts and samples."""
    id: int
    logprob: float
    """Log-probability in nats before temperature and filters: what the model itself says."""


class Decoding:
    """B sequences that grow by a token at every `step`.

    Example: one prompt, greedy.

        decoding = Decoding(model, [ids], SamplingConfig(temperature=0))
        while decoding.active:
            for token in decoding.step(): ...
    """

    def __init__(
        self,
        model: GPT2,
        prompts: Sequence[Ids],
        config: SamplingConfig,
        *,
        num_samples: int = 1,
        stop_ids: Collection[int] = (),
        vocab_size: int | None = None,
    ) -> None:
        """Check the prompts; the first `step` reads them.

        Args:
            prompts: Token ids, at least one a prompt. Row `p * num_samples + s` is sample s of
                prompt p.
            stop_ids: Tokens that end a row; the token itself belongs to it.
            vocab_size: Ids from here on are never sampled (padding of the embedding).

        Raises:
            InputError: A prompt without tokens, or with ids that the model does not know.
            ContextLengthError: A prompt longer than the context, unless the window slides.
            SamplingError: `num_samples` below 1, more than `MAX_ROWS` sequences, or a stop token
                that can never come.
        """
        if isinstance(num_samples, bool) or not isinstance(num_samples, Integral):
            raise SamplingError(f"num_samples is {num_samples!r}; give a whole number")
        if num_samples < 1:
            raise SamplingError(f"num_samples is {num_samples}; it must be at least 1")
        rows = len(prompts) * num_samples
        if rows > MAX_ROWS:
            raise SamplingError(
                f"prompts x num_samples is {rows} texts, and at most {MAX_ROWS} at once: "
                "ask in several calls, each with its own seed"
            )
        self.model, self.config = model, config
        self.vocab_size = min(vocab_size or model.config.vocab_size, model.config.vocab_size)
        if not isinstance(stop_ids, Collection) or isinstance(stop_ids, str):
            raise SamplingError(f"stop_ids is {stop_ids!r}; give a list of ids")
        for id in stop_ids:
            if not isinstance(id, Integral) or not 0 <= id < self.vocab_size:
                raise SamplingError(
                    f"stop id {id!r} is never sampled; give ids from 0 to {self.vocab_size - 1}"
                )
        self.stop_ids = frozenset(stop_ids)
        self.seed = config.seed if config.seed is not None else secrets.randbits(32)
        self.num_samples = num_samples
        self.sequences: list[list[int]] = []
        self.finished: dict[int, FinishReason] = {}
        self._limits: list[int] = []  # tokens of prompt and response at most
        self._noise: list[np.random.Generator] = []
        for prompt in prompts:
            self._add(prompt)
        self.active = [row for row in range(len(self.sequences)) if row not in self.finished]
        self._cache: KVCache | None = None
        self._cached: list[int] = []  # the rows that the cache holds, in its order

    def _add(self, prompt: Ids) -> None:
        if not hasattr(prompt, "__len__") or isinstance(prompt, str):
            raise InputError(f"prompt {prompt!r} is no list of ids; give a list of such lists")
        if len(prompt) == 0:
            raise InputError("a prompt without tokens: start from the end-of-text token")
        checked = self.model.check(prompt)
        if checked.dim() != 1:
            raise InputError(f"a prompt of shape {tuple(checked.shape)}: give one list of ids each")
        ids = checked.tolist()
        context = self.model.config.n_positions
        slides = self.config.past_context == "slide"
        if len(ids) > context and not slides:
            raise ContextLengthError(
                f"the prompt has {len(ids)} tokens and the model's context holds {context}: "
                "shorten it, or slide the window (past_context='slide')"
            )
        limit = len(ids) + self.config.max_new_tokens
        if self.config.max_length is not None:
            limit = min(limit, self.config.max_length)
        if not slides:
            limit = min(limit, context)
        for sample in range(self.num_samples):
            if limit <= len(ids):
                self.finished[len(self.sequences)] = "length"
            self.sequences.append(list(ids))
            self._limits.append(limit)
            self._noise.append(generator(self.seed, ids, sample))

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """Choose the next token of every active row, in the order of the rows.

        Raises:
            SamplingError: The model's logits are not numbers.
        """
        rows = self.active
        if not rows:
            return []
        with self.model.evaluating():
            logits = self._next_logits(rows).float()
        logits = filters.vocabulary(logits, self.vocab_size)
        logprobs = logits.log_softmax(dim=-1)
        self._refuse_nan(logprobs)
        u = torch.tensor([self._noise[row].random() for row in rows], dtype=torch.float64)
        chosen = pick(filtered(logits, self.config), u, self.config.temperature)
        logprobs = logprobs.gather(-1, chosen[:, None])[:, 0]
        tokens = [
            Token(row, id, logprob)
            for row, id, logprob in zip(rows, chosen.tolist(), logprobs.tolist(), strict=True)
        ]
        for token in tokens:
            sequence = self.sequences[token.row]
            sequence.append(token.id)
            if token.id in self.stop_ids:
                self.finish(token.row, "stop")
            elif len(sequence) >= self._limits[token.row]:
                self.finish(token.row, "length")
        return tokens

    def finish(self, row: int, reason: FinishReason) -> None:
        """End a row; callers use it for stop strings and cancellation.

        A row that ends for two reasons at once, such as a stop string in the last token that its
        limit allows, keeps the reason given last.
        """
        self.finished[row] = reason
        self.active = [other for other in self.active if other != row]

    def _refuse_nan(self, logprobs: Float[Tensor, "B V"]) -> None:
        """One NaN or infinity among a row's logits makes all its log-probabilities NaN."""
        broken = logprobs[:, 0].isnan()
        if broken.any():
            row = self.active[int(broken.int().argmax())]
            raise SamplingError(
                f"the model's logits after token {len(self.sequences[row])} of sequence {row} are "
                f"NaN or infinite: its weights are damaged, or too large for {self.model.dtype}; "
                "try float32"
            )

    def _next_logits(self, rows: list[int]) -> Float[Tensor, "B V"]:
        """Logits after the last token of each row."""
        context = self.model.config.n_positions
        inside = [row for row in rows if len(self.sequences[row]) <= context]
        beyond = [row for row in rows if len(self.sequences[row]) > context]
        if not beyond:
            return self._cached_logits(rows)
        # Rows that outgrew the context leave the cache; the others go on in it.
        parts = [self._window_logits(beyond)]
        if inside:
            parts.append(self._cached_logits(inside))
        order = beyond + inside
        return torch.cat(parts)[[order.index(row) for row in rows]]

    def _cached_logits(self, rows: list[int]) -> Float[Tensor, "B V"]:
        """Logits from the newest token alone; the cache holds what came before."""
        if self._cache is None:
            return self._read_prompts(rows)
        if rows != self._cached:
            self._cache.select([self._cached.index(row) for row in rows])
            self._cached = rows
        ids = torch.tensor([self.sequences[row][-1:] for row in rows], device=self.model.device)
        return self.model.logits(self.model.hidden(ids, self._cache)[:, -1])

    def _read_prompts(self, rows: list[int]) -> Float[Tensor, "B V"]:
        """Fill the cache with every prompt once, then copy it to the prompt's samples."""
        firsts = sorted({row - row % self.num_samples for row in rows})
        prompts = [self.sequences[row] for row in firsts]
        # A row never grows past its limit, and its last token needs no room.
        capacity = max(max(self._limits[row] for row in rows) - 1, max(map(len, prompts)))
        self._cache = KVCache(
            self.model.config, len(firsts), like=self.model.wte.weight, capacity=capacity
        )
        last = last_hidden(self.model, prompts, self._cache)
        copies = [firsts.index(row - row % self.num_samples) for row in rows]
        if copies != list(range(len(firsts))):
            self._cache.select(copies)
        self._cached = rows
        return self.model.logits(last[copies])

    def _window_logits(self, rows: list[int]) -> Float[Tensor, "B V"]:
        """Logits of rows past the context, their newest tokens read anew: exact, and slow."""
        context = self.model.config.n_positions
        windows = [self.sequences[row][-context:] for row in rows]
        return self.model.logits(last_hidden(self.model, windows, None))


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


def filtered(logits: Float[Tensor, "B V"], config: SamplingConfig) -> Float[Tensor, "B V"]:
    """Temperature, then top-k, then top-p, the order of transformers."""
    if config.temperature == 0:
        return logits
    logits = filters.temperature(logits, config.temperature)
    if config.top_k is not None:
        logits = filters.top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = filters.top_p(logits, config.top_p)
    return logits


def pick(
    logits: Float[Tensor, "B V"], u: Float[Tensor, " B"], temperature: float
) -> Int[Tensor, " B"]:
    """One token a row: the largest logit if `temperature` is 0, else by inverting the CDF at u.

    The token is the first whose cumulative probability exceeds u, so a forbidden one, which adds
    nothing, is never chosen.

    >>> logits = torch.tensor([[0.5, 0.0, 0.5]]).log()
    >>> [pick(logits, torch.tensor([u]), 1.0).item() for u in (0.0, 0.49, 0.51, 0.99)]
    [0, 0, 2, 2]
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    # Metal has no float64; elsewhere it keeps 50,257 rounding errors out of the sum.
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    cdf = logits.softmax(dim=-1).cumsum(dim=-1, dtype=wide)
    total = cdf[:, -1:]
    # u < 1, but u * total may round up to total itself, which no token would exceed.
    target = torch.minimum(
        u[:, None].to(total) * total, torch.nextafter(total, torch.zeros_like(total))
    )
    return torch.searchsorted(cdf, target, right=True)[:, 0]
