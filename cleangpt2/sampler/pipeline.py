"""The order in which settings change the logits of the next token.

First ``constrain``, what the sequence so far forbids, discourages or forces; then any function of
the user's own (``run_filters``); then ``warp``, which reshapes the distribution to draw from. The
order within each is that of transformers' logits processors (5.23), with which
``tests/parity/test_pipeline.py`` compares random combinations. Greedy decoding and beam search
leave out the last.

Letters: B rows, V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor

from cleangpt2.errors import SamplingError
from cleangpt2.sampler import filters, penalties
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.penalties import Sequences

Filter = Callable[[Float[Tensor, "B V"], Sequences], Float[Tensor, "B V"]]
"""A function of the user's own: the logits and all ids (prompt included) of the rows at work.

It returns logits of the same shape, -inf for a token it forbids.
"""


def check_ids(config: SamplingConfig, stop_ids: Collection[int], vocab_size: int) -> None:
    """Refuse ids that the vocabulary does not have, and settings that contradict each other.

    Raises:
        SamplingError: It names the id and its setting.
    """
    if not isinstance(stop_ids, Collection) or isinstance(stop_ids, str):
        raise SamplingError(f"stop_ids is {stop_ids!r}; give a list of ids")
    named = {
        "stop_ids": stop_ids,
        "banned": [id for sequence in config.banned for id in sequence],
        "logit_bias": [id for id, _ in config.logit_bias],
        "forced_start": config.forced_start,
        "forced_end": [] if config.forced_end is None else [config.forced_end],
    }
    for setting, ids in named.items():
        for id in ids:
            if isinstance(id, bool) or not isinstance(id, Integral) or not 0 <= id < vocab_size:
                what = "stop id" if setting == "stop_ids" else f"{setting}: id"
                raise SamplingError(
                    f"{what} {id!r} is never sampled; give ids from 0 to {vocab_size - 1}"
                )
    forbidden = {sequence[0] for sequence in config.banned if len(sequence) == 1}
    forbidden |= {id for id, bias in config.logit_bias if bias == -torch.inf}
    for id in stop_ids:
        if id in forbidden:
            raise SamplingError(
                f"stop id {id} is banned and would never come: take it out of stop_ids"
            )
        if id in config.forced_start:
            raise SamplingError(
                f"forced_start has the stop id {id}, which would end the response at once: "
                "take it out of one of them"
            )


def constrain(
    logits: Float[Tensor, "B V"],
    sequences: Sequences,
    config: SamplingConfig,
    *,
    starts: Sequence[int],
    stop_ids: Collection[int] = (),
    ends: Sequence[int] | None = None,
    dead_ends: bool = False,
) -> Float[Tensor, "B V"]:
    """Forbid, discourage and force tokens for what each row says so far.

    Args:
        sequences: All ids of each row.
        starts: Where the response begins in each row: the length of its prompt.
        stop_ids: Tokens that `min_new_tokens` keeps away.
        ends: How long each row may become, for `forced_end`; `None` means without end.
        dead_ends: Let rows be without a token: among many beams some may end nowhere.

    Raises:
        SamplingError: No token is left to a row.
    """
    for name, change in _constraints(config, starts, stop_ids, ends):
        logits = change(logits, sequences)
        _check_choice(logits, sequences, name, dead_ends)
    return logits


def _constraints(
    config: SamplingConfig,
    starts: Sequence[int],
    stop_ids: Collection[int],
    ends: Sequence[int] | None,
) -> Iterator[tuple[str, Filter]]:
    """The settings that are on and what each does, in transformers' order.

    OpenAI's two penalties, which transformers does not have, stand beside its own.
    """

    def responses(sequences: Sequences) -> Sequences:
        return [ids[start:] for ids, start in zip(sequences, starts, strict=True)]

    if bias := config.logit_bias:
        yield "logit_bias", lambda logits, _: penalties.logit_bias(logits, bias)
    if (penalty := config.repetition_penalty) != 1:
        yield (
            "repetition_penalty",
            lambda logits, ids: penalties.repetition_penalty(logits, ids, penalty),
        )
    if (frequency := config.frequency_penalty) or config.presence_penalty:
        presence = config.presence_penalty
        yield (
            "frequency_penalty and presence_penalty",
            lambda logits, ids: penalties.count_penalties(
                logits, responses(ids), frequency, presence
            ),
        )
    if n := config.no_repeat_ngram:
        yield "no_repeat_ngram", lambda logits, ids: penalties.no_repeat_ngrams(logits, ids, n)
    if bans := config.banned:
        yield "banned", lambda logits, ids: penalties.banned(logits, ids, bans)
    if least := config.min_new_tokens:
        yield (
            "min_new_tokens",
            lambda logits, ids: penalties.too_short(logits, responses(ids), least, stop_ids),
        )
    if config.forced_start or config.forced_end is not None:
        yield (
            "forced ids",
            lambda logits, ids: penalties.forced(logits, _forced_ids(ids, config, starts, ends)),
        )


def _forced_ids(
    sequences: Sequences,
    config: SamplingConfig,
    starts: Sequence[int],
    ends: Sequence[int] | None,
) -> list[int | None]:
    """The id that each row has to take now, if any; at the last place the end goes first."""
    ids: list[int | None] = []
    for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        step = len(sequence) - start
        id = config.forced_start[step] if step < len(config.forced_start) else None
        if config.forced_end is not None and ends is not None and len(sequence) == ends[row] - 1:
            id = config.forced_end
        ids.append(id)
    return ids


def check_filters(filters: Sequence[Filter]) -> tuple[Filter, ...]:
    """The user's own functions, refused here if they are none."""
    if not isinstance(filters, Sequence) or not all(map(callable, filters)):
        raise SamplingError(f"filters is {filters!r}; give a list of functions on logits and ids")
    return tuple(filters)


def run_filters(
    logits: Float[Tensor, "B V"],
    sequences: Sequences,
    filters: Sequence[Filter],
    *,
    dead_ends: bool = False,
) -> Float[Tensor, "B V"]:
    """Apply the user's own functions one after the other; each gets a copy of the logits.

    What was forbidden before stays so, whatever they say.

    Args:
        dead_ends: As in `constrain`.

    Raises:
        SamplingError: One returned something else than such logits, or left a row no token.
    """
    for function in filters:
        name = f"the filter {getattr(function, '__name__', function)}"
        result = function(logits.clone(), sequences)
        _check_result(result, logits, name)
        if result.isnan().any():
            raise SamplingError(f"{name} made logits NaN: forbid a token with -inf")
        logits = result.masked_fill(logits == -torch.inf, -torch.inf)
        _check_choice(logits, sequences, name, dead_ends)
    return logits


def _check_result(result: object, logits: Float[Tensor, "B V"], name: str) -> None:
    """Refuse what cannot stand in for the logits."""
    if not isinstance(result, Tensor):
        raise SamplingError(f"{name} returned a {type(result).__name__}; return the logits")
    for what in ("shape", "dtype", "device"):
        ours, theirs = getattr(logits, what), getattr(result, what)
        if ours != theirs:
            raise SamplingError(
                f"{name} returned logits of {what} {theirs}; keep the {what} they had, {ours}"
            )


def _check_choice(
    logits: Float[Tensor, "B V"], sequences: Sequences, name: str, dead_ends: bool
) -> None:
    """Refuse a row without a token to choose, and logits that are no numbers (NaN shows here)."""
    largest = logits.amax(dim=-1)
    right = largest.isfinite() | ((largest == -torch.inf) & dead_ends)
    if right.all():
        return
    row = int(right.int().argmin())
    problem = (
        "left no token to choose" if largest[row] == -torch.inf else "made logits NaN or infinite"
    )
    raise SamplingError(
        f"{name} {problem} after {len(sequences[row])} tokens of a sequence: "
        "loosen it, or what forbids tokens before it"
    )


def warp(logits: Float[Tensor, "B V"], config: SamplingConfig) -> Float[Tensor, "B V"]:
    """Temperature, then top-k, top-p, min-p and typical; nothing if greedy."""
    if config.temperature == 0:
        return logits
    if config.temperature != 1:
        logits = filters.temperature(logits, config.temperature)
    if config.top_k is not None:
        logits = filters.top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = filters.top_p(logits, config.top_p)
    if config.min_p is not None:
        logits = filters.min_p(logits, config.min_p)
    if config.typical_p is not None:
        logits = filters.typical(logits, config.typical_p)
    return logits
