"""What a model wrote after a prompt, and the pieces in which it comes."""

from dataclasses import dataclass

from cleangpt2.sampler.decode import FinishReason


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a model wrote after a prompt."""

    prompt: str
    text: str
    """The response, without the stop string or stop token that ended it."""
    prompt_ids: list[int]
    """What the model read: the prompt, less the tokens that healing took off its end."""
    ids: list[int]
    """Every token that was chosen, a stop token and those of a healed prompt included."""
    logprobs: list[float]
    """Log-probability of each of `ids` in nats, before temperature and filters."""
    filtered_logprobs: list[float] | None = None
    """The same after them, in the distribution that the token was drawn from; 0 where greedy.

    `None` for a search, which draws nothing.
    """
    top_logprobs: list[list[tuple[int, float]]] | None = None
    """For each of `ids` the likeliest tokens and their log-probabilities, before filters.

    As many as the setting `top_logprobs` asks for; `None` unless it does.
    """
    top_filtered_logprobs: list[list[tuple[int, float]]] | None = None
    """The same after temperature and filters; fewer where they leave fewer."""
    finish_reason: FinishReason
    """"stop": a stop token or stop string; "length": no more tokens allowed, or no more context."""
    sample: int
    """Number of this sample among those of its prompt; of a search, its place, the best first."""
    seed: int | None
    """The seed that gives this text again; `None` for a search, which draws nothing."""
    score: float | None = None
    """What a beam search ranks by; `None` otherwise."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text that one sequence grew by."""

    row: int
    text: str
    completion: Completion | None = None
    """The whole, with the last piece of a sequence."""
