"""Several models side by side: the same prompts, the same random numbers, and what each thinks.

The number that picks a token depends on seed, prompt and step alone (``sampler/noise.py``), so
models with equal weights write equal answers, and where two answers part it is the models' doing.
Each model then reads every answer, its own and the others': for each token there is its log-
probability under each model, and at each place

    KL(A || X) = sum over the vocabulary of p_A (log p_A - log p_X),

of the first model from each other, exact and not an estimate from the token that was drawn. All of
it is before temperature and filters.

Letters: M models, P and R prompt and response length, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cleangpt2.completion import Completion, generate
from cleangpt2.completion.prompts import Prompt
from cleangpt2.errors import ConfigError
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sft.viewer import texts
from cleangpt2.tokenizer import Tokenizer

_PLACES = 64  # at a time: as many times V numbers for each model


class Contestant(NamedTuple):
    """A model that takes part, and what it is called."""

    name: str
    model: GPT2
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class Answer:
    """What one of the models wrote, and what all of them think of it."""

    completion: Completion
    tokens: list[str]
    """The text of each token, that of a stop token included."""
    logprobs: list[list[float]]
    """Of each model, for each token: its log-probability in nats."""
    kl: list[list[float]]
    """Of each model, at each token: KL of the first model's distribution from this one's, in nats;
    0 for the first itself."""

    def change(self, model: int) -> list[float]:
        """How much likelier each token is to a model than to the first one, in nats."""
        pairs = zip(self.logprobs[model], self.logprobs[0], strict=True)
        return [theirs - first for theirs, first in pairs]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers to one prompt, in the order of the models."""

    prompt: str
    answers: list[Answer]


def check_vocabulary(contestants: Sequence[Contestant]) -> None:
    """Refuse models whose ids do not mean the same.

    Raises:
        ConfigError: They do not.
    """
    first = contestants[0]
    for other in contestants[1:]:
        ours, theirs = first.tokenizer.vocabulary, other.tokenizer.vocabulary
        if (ours.ids, ours.special) != (theirs.ids, theirs.special):
            sizes = f"{ours.size:,} tokens and {theirs.size:,}"
            raise ConfigError(
                f"{first.name} and {other.name} have different vocabularies ({sizes}), so their "
                "probabilities are of different things: compare models of one vocabulary, such as "
                "a model and what was fine-tuned from it without new tokens"
            )


def compare(
    contestants: Sequence[Contestant],
    prompts: Sequence[Prompt],
    *,
    config: SamplingConfig,
    stop_ids: Sequence[int],
) -> Iterator[Comparison]:
    """Let every model answer every prompt; yield prompt by prompt.

    Args:
        contestants: The models; the others are compared with the first.
        prompts: The same ids for all.
        config: With a seed.
        stop_ids: Tokens that end an answer.

    Raises:
        ConfigError: The models have different vocabularies, or there is no seed.
    """
    check_vocabulary(contestants)
    if config.seed is None:
        raise ConfigError("seed is None: give one, so that all models get the same random numbers")
    tokenizer, models = contestants[0].tokenizer, [one.model for one in contestants]
    context = min(model.config.n_positions for model in models)  # all are to read all answers
    config = replace(config, max_length=min(config.max_length or context, context))
    for prompt in prompts:
        found = [
            generate(model, tokenizer, prompt, config=config, stop_ids=stop_ids) for model in models
        ]
        yield Comparison(prompt.text, [read(models, tokenizer, answer) for answer in found])


@torch.inference_mode()
def read(models: Sequence[GPT2], tokenizer: Tokenizer, completion: Completion) -> Answer:
    """What the models think of an answer, token by token."""
    ids, P = [*completion.prompt_ids, *completion.ids], len(completion.prompt_ids)
    names = texts(completion.ids, tokenizer)
    if not completion.ids:
        return Answer(completion, names, [[] for _ in models], [[] for _ in models])
    # The last token predicts nothing, and what comes before the last of the prompt is not asked.
    hidden = [model.hidden(model.check([ids[:-1]]))[0, P - 1 :] for model in models]
    chosen = torch.tensor(completion.ids)
    logprobs, kl = [], []
    for start in range(0, len(chosen), _PLACES):
        part = slice(start, start + _PLACES)
        all_of_them = [
            _logprobs(model, stream[part], tokenizer.vocab_size)
            for model, stream in zip(models, hidden, strict=True)
        ]
        logprobs.append(torch.stack([p.gather(1, chosen[part, None])[:, 0] for p in all_of_them]))
        kl.append(torch.stack([divergence(all_of_them[0], other) for other in all_of_them]))
    return Answer(completion, names, torch.cat(logprobs, 1).tolist(), torch.cat(kl, 1).tolist())


def divergence(a: Float[Tensor, "R V"], b: Float[Tensor, "R V"]) -> Float[Tensor, " R"]:
    """KL(a || b) of distributions that are given as log-probabilities, in nats.

    >>> a, b = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    >>> round(divergence(a, b).item(), 4)  # 0.5 log 2 + 0.5 log 2/3
    0.1438
    """
    return (a.exp() * (a - b)).sum(-1).clamp(min=0)  # rounding may leave less than nothing


def _logprobs(model: GPT2, hidden: Float[Tensor, "R C"], V: int) -> Float[Tensor, "R V"]:
    """Log-probabilities in float64, which not every device has, of the V tokens there are."""
    return model.logits(hidden)[:, :V].to("cpu", torch.float64).log_softmax(-1)
