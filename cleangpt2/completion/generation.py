"""Prompts to completions: at once, or piece by piece as the text is sampled."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from cleangpt2.completion.completion import Completion, Delta
from cleangpt2.completion.constraints import (
    TextRules,
    checked_texts,
    configure,
    worded,
)
from cleangpt2.completion.prompts import Prompt
from cleangpt2.completion.reader import Reader
from cleangpt2.errors import SamplingError
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.decode import Decoding, Token
from cleangpt2.sampler.pipeline import Filter
from cleangpt2.tokenizer import Tokenizer


@overload
def generate(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str | Prompt,
    *,
    num_samples: Literal[1] = 1,
    **settings: Any,
) -> Completion: ...
@overload
def generate(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str | Prompt | Sequence[str | Prompt],
    *,
    num_samples: int = 1,
    **settings: Any,
) -> list[Completion]: ...
def generate(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str | Prompt | Sequence[str | Prompt] = "",
    *,
    num_samples: int = 1,
    **settings: Any,
) -> Completion | list[Completion]:
    """Continue one or many prompts.

    A prompt that stands twice in the list gets the same text twice; for several texts ask for
    `num_samples`.

        out = generate(model, tokenizer, "Once upon a time", temperature=0.8, top_k=50, seed=1)
        print(out.text)

    Args:
        prompt: A text or several; an empty one starts from the end-of-text token. A `Prompt` has
            ids of its own, such as those of a chat template.
        num_samples: How many continuations of each prompt.
        settings: The fields of `SamplingConfig` and what else `stream_all` takes.

    Returns:
        One Completion for one prompt and one sample, else a list, prompt by prompt.
    """
    deltas = stream_all(model, tokenizer, prompt, num_samples=num_samples, **settings)
    finished = {delta.row: delta.completion for delta in deltas if delta.completion is not None}
    completions = [finished[row] for row in sorted(finished)]
    return completions[0] if isinstance(prompt, str | Prompt) and num_samples == 1 else completions


def stream(model: GPT2, tokenizer: Tokenizer, prompt: str = "", **settings: Any) -> Iterator[str]:
    """The text of one continuation, piece by piece as it is sampled.

        for piece in stream(model, tokenizer, "Once upon a time", seed=1):
            print(piece, end="", flush=True)

    Joined, the pieces are the `text` that `generate` gives for the same settings.
    """
    if not isinstance(prompt, str) or settings.get("num_samples", 1) != 1:
        raise SamplingError("stream gives one text; for several prompts or samples use stream_all")
    return (delta.text for delta in stream_all(model, tokenizer, prompt, **settings) if delta.text)


def stream_all(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str | Prompt | Sequence[str | Prompt] = "",
    *,
    num_samples: int = 1,
    stop: str | Sequence[str] | None = None,
    stop_ids: Sequence[int] | None = None,
    heal: bool = False,
    ban: str | Sequence[str] | None = None,
    bias: Mapping[str, float] | None = None,
    start: str = "",
    filters: Filter | Sequence[Filter] = (),
    config: SamplingConfig | None = None,
    **settings: Any,
) -> Iterator[Delta]:
    """Continue all prompts at once; yield pieces of text as they come, rows interleaved.

    Args:
        stop: Texts that end a response, the one that is complete first; never part of its text.
        stop_ids: Tokens that end a response; by default the end-of-text token.
        heal: Whether a prompt may end inside a word or with a space (see ``healing``). The tokens
            taken off it and said again count as new ones.
        ban: Texts that a response never contains, not even inside a word (see ``bans``).
        bias: Added to the logit of a text that is one token, such as `{" dog": 2.5}`.
        start: The text that each response begins with.
        filters: Functions of the logits (B, V) of the rows at work and of all their ids so far,
            prompts included; each gives the logits back, -inf for a token that it forbids.

                def no_digits(logits, sequences):  # digits: a list of ids
                    logits[:, digits] = -torch.inf
                    return logits

        config: Sampling settings; `settings` override its fields.

    Raises:
        SamplingError: A setting that does not exist or is out of range.
        InputError: A prompt that is no text.
        ContextLengthError: A prompt longer than the context.
    """
    stops = checked_texts(stop, "stop string", "stop_ids")
    rules = TextRules(tokenizer, prompt, heal=heal, ban=ban, start=start, filters=filters)
    config = configure(SamplingConfig, config, settings)
    stop_ids = [tokenizer.eos_id] if stop_ids is None else stop_ids
    decoding = Decoding(
        model,
        [asked.ids for asked in rules.prompts],
        worded(config, tokenizer, bias, start),
        num_samples=num_samples,
        stop_ids=stop_ids,
        vocab_size=tokenizer.vocab_size,
        # Asked at each step, when the name is bound: which prompts the rows at work belong to.
        filters=rules.filters(
            lambda: [rules.prompts[row // num_samples] for row in decoding.active], stop_ids
        ),
    )
    # Checked here and now; only the sampling itself waits for the first piece to be asked for.
    return _run(decoding, tokenizer, rules.prompts, stops)


def _run(
    decoding: Decoding, tokenizer: Tokenizer, prompts: Sequence[Prompt], stops: Sequence[str]
) -> Iterator[Delta]:
    owners = [prompts[row // decoding.num_samples] for row in range(len(decoding.sequences))]
    readers = [Reader(tokenizer, stops, skip=len(prompt.healed)) for prompt in owners]
    chosen: list[list[Token]] = [[] for _ in owners]

    def close(row: int, last: str) -> Delta:
        return Delta(
            row, last, _complete(decoding, row, owners[row], readers[row].text, chosen[row])
        )

    for row in decoding.finished:  # no room for even one token
        yield close(row, "")
    while decoding.active:
        for token in decoding.step():
            reader = readers[token.row]
            chosen[token.row].append(token)
            # A stop token ends the row and is not text.
            piece = "" if token.id in decoding.stop_ids else reader.push(token.id)
            if reader.stopped:
                decoding.finish(token.row, "stop")
            if token.row in decoding.finished:
                last = piece + reader.finish()
                yield close(token.row, last)
            elif piece:
                yield Delta(token.row, piece)


def _complete(
    decoding: Decoding, row: int, prompt: Prompt, text: str, tokens: list[Token]
) -> Completion:
    """All that is known of a finished row."""

    def tops(name: str) -> list[list[tuple[int, float]]] | None:
        if not decoding.config.top_logprobs:
            return None
        return [[(other.id, other.logprob) for other in getattr(token, name)] for token in tokens]

    return Completion(
        prompt=prompt.text,
        text=text,
        prompt_ids=prompt.ids,
        ids=[token.id for token in tokens],
        logprobs=[token.logprob for token in tokens],
        filtered_logprobs=[token.filtered_logprob for token in tokens],
        top_logprobs=tops("top"),
        top_filtered_logprobs=tops("filtered_top"),
        finish_reason=decoding.finished[row],
        sample=row % decoding.num_samples,
        seed=decoding.seed,
    )
