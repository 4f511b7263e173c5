"""Text in, texts out, for the two searches of the sampler: beam search and contrastive search."""

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

from cleangpt2.completion.completion import Completion
from cleangpt2.completion.constraints import TextRules, as_tuples, configure, worded
from cleangpt2.completion.prompts import Prompt
from cleangpt2.completion.reader import Reader
from cleangpt2.errors import SamplingError
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sampler import beam, contrastive
from cleangpt2.sampler.config import BeamConfig, ContrastiveConfig, SamplingConfig
from cleangpt2.sampler.pipeline import Filter
from cleangpt2.sampler.search import Hypothesis
from cleangpt2.tokenizer import Tokenizer

CONSTRAINTS = (
    "min_new_tokens",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "no_repeat_ngram",
    "banned",
    "logit_bias",
    "forced_start",
    "forced_end",
)
"""The fields of `SamplingConfig` that hold in a search; the others are about drawing."""

OTHERS = (*CONSTRAINTS, "stop_ids", "heal", "ban", "bias", "start", "filters")


def beam_search(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    config: BeamConfig | None = None,
    **settings: Any,
) -> list[Completion]:
    """The likeliest continuations that beam search finds, the best first.

        best, second = beam_search(model, tokenizer, "The dog", num_beams=4, num_return=2)
        print(best.text, best.score)

    Args:
        prompt: A text; an empty one starts from the end-of-text token.
        config: Settings of the search; `settings` override its fields.
        settings: The fields of `BeamConfig`; what `SamplingConfig` has of penalties, bans and
            forced tokens (`CONSTRAINTS`); and `stop_ids`, `heal`, `ban`, `bias`, `start` and
            `filters` of `stream_all`. There are no stop strings.

    Raises:
        SamplingError: A setting that does not exist or is out of range.
        InputError: A prompt that is no text.
        ContextLengthError: A prompt longer than the context.
    """
    return _search(beam.beam_search, BeamConfig, config, model, tokenizer, prompt, **settings)


def contrastive_search(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    config: ContrastiveConfig | None = None,
    **settings: Any,
) -> Completion:
    """The continuation of contrastive search: likely, and unlike what was said before.

        print(contrastive_search(model, tokenizer, "The dog", alpha=0.6, top_k=4).text)

    The arguments are those of `beam_search`, with the fields of `ContrastiveConfig`.
    """
    search = contrastive.contrastive_search
    return _search(search, ContrastiveConfig, config, model, tokenizer, prompt, **settings)[0]


def _search(
    search: Callable[..., Hypothesis | list[Hypothesis]],
    kind: type,
    config: Any,
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    stop_ids: Sequence[int] | None = None,
    heal: bool = False,
    ban: str | Sequence[str] | None = None,
    bias: Mapping[str, float] | None = None,
    start: str = "",
    filters: Filter | Sequence[Filter] = (),
    **settings: Any,
) -> list[Completion]:
    """Words to ids, the search itself, and ids to words."""
    if isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes):
        raise SamplingError("a search continues one prompt; call it once for each")
    rules = TextRules(tokenizer, prompt, heal=heal, ban=ban, start=start, filters=filters)
    [asked] = rules.prompts
    own, constraints = _divide(kind, config, settings)
    stop_ids = [tokenizer.eos_id] if stop_ids is None else stop_ids
    found = search(
        model,
        asked.ids,
        own,
        constraints=worded(constraints, tokenizer, bias, start),
        stop_ids=stop_ids,
        vocab_size=tokenizer.vocab_size,
        filters=rules.filters(lambda: repeat(asked), stop_ids),  # of however many rows
    )
    hypotheses = found if isinstance(found, list) else [found]
    return [
        _complete(hypothesis, place, asked, tokenizer, stop_ids)
        for place, hypothesis in enumerate(hypotheses)
    ]


def _divide(kind: type, config: Any, settings: dict[str, Any]) -> tuple[Any, SamplingConfig]:
    """The search's own settings, and the constraints among the sampler's."""
    constraints = {name: settings.pop(name) for name in CONSTRAINTS if name in settings}
    own = configure(kind, config, settings, OTHERS, example="max_new_tokens=50")
    return own, SamplingConfig(max_new_tokens=own.max_new_tokens, **as_tuples(constraints))


def _complete(
    hypothesis: Hypothesis,
    place: int,
    prompt: Prompt,
    tokenizer: Tokenizer,
    stop_ids: Sequence[int],
) -> Completion:
    reader = Reader(tokenizer, (), skip=len(prompt.healed))
    for id in hypothesis.ids:
        if id not in stop_ids:  # a stop token ends the text and is none
            reader.push(id)
    reader.finish()
    return Completion(
        prompt=prompt.text,
        text=reader.text,
        prompt_ids=prompt.ids,
        ids=list(hypothesis.ids),
        logprobs=list(hypothesis.logprobs),
        finish_reason=hypothesis.finish_reason,
        sample=place,
        seed=None,
        score=hypothesis.score,
    )
