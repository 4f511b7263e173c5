"""Text in, text out: prompts, stop strings and streaming over the sampler, which knows only ids."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

from cleangpt2.errors import InputError, SamplingError, did_you_mean
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.decode import Decoding, FinishReason
from cleangpt2.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a model wrote after a prompt."""

    prompt: str
    text: str
    """The response, without the stop string or stop token that ended it."""
    prompt_ids: list[int]
    ids: list[int]
    """Every token that was sampled, a stop token included."""
    logprobs: list[float]
    """Log-probability of each of `ids` in nats, before temperature and filters."""
    finish_reason: FinishReason
    """"stop": a stop token or stop string; "length": no more tokens allowed, or no more context."""
    sample: int
    """Number of this sample among those of its prompt."""
    seed: int
    """The seed that gives this text again."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text that one sequence grew by."""

    row: int
    text: str
    completion: Completion | None = None
    """The whole, with the last piece of a sequence."""


@overload
def generate(
    model: GPT2, tokenizer: Tokenizer, prompt: str, *, num_samples: Literal[1] = 1, **settings: Any
) -> Completion: ...
@overload
def generate(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str | Sequence[str],
    *,
    num_samples: int = 1,
    **settings: Any,
) -> list[Completion]: ...
def generate(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str | Sequence[str] = "",
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
        prompt: A text or several; an empty one starts from the end-of-text token.
        num_samples: How many continuations of each prompt.
        settings: The fields of `SamplingConfig` and the `stop` of `stream_all`.

    Returns:
        One Completion for one prompt and one sample, else a list, prompt by prompt.
    """
    deltas = stream_all(model, tokenizer, prompt, num_samples=num_samples, **settings)
    finished = {delta.row: delta.completion for delta in deltas if delta.completion is not None}
    completions = [finished[row] for row in sorted(finished)]
    return completions[0] if isinstance(prompt, str) and num_samples == 1 else completions


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
    prompt: str | Sequence[str] = "",
    *,
    num_samples: int = 1,
    stop: str | Sequence[str] | None = None,
    stop_ids: Sequence[int] | None = None,
    config: SamplingConfig | None = None,
    **settings: Any,
) -> Iterator[Delta]:
    """Continue all prompts at once; yield pieces of text as they come, rows interleaved.

    Args:
        stop: Texts that end a response, the one that is complete first; never part of its text.
        stop_ids: Tokens that end a response; by default the end-of-text token.
        config: Sampling settings; `settings` override its fields.

    Raises:
        SamplingError: A setting that does not exist or is out of range.
        InputError: A prompt that is no text.
        ContextLengthError: A prompt longer than the context.
    """
    stops, prompts = [] if stop is None else _listed(stop), _listed(prompt)
    for text in stops:
        if not isinstance(text, str):
            raise SamplingError(f"stop string {text!r} is no text; token ids go to stop_ids")
        if not text:
            raise SamplingError("a stop string is empty: every text contains it; leave it out")
    for text in prompts:
        if not isinstance(text, str):
            raise InputError(
                f"prompt {text!r} is a {type(text).__name__}, not text; for token ids use "
                "sampler.decode.Decoding"
            )
    prompt_ids = [tokenizer.encode(text) or [tokenizer.eos_id] for text in prompts]
    decoding = Decoding(
        model,
        prompt_ids,
        _configure(config, settings),
        num_samples=num_samples,
        stop_ids=[tokenizer.eos_id] if stop_ids is None else stop_ids,
        vocab_size=tokenizer.vocab_size,
    )
    # Checked here and now; only the sampling itself waits for the first piece to be asked for.
    return _run(decoding, tokenizer, prompts, prompt_ids, stops)


def _run(
    decoding: Decoding,
    tokenizer: Tokenizer,
    prompts: list[str],
    prompt_ids: list[list[int]],
    stops: list[str],
) -> Iterator[Delta]:
    rows = range(len(decoding.sequences))
    readers = [_Reader(tokenizer, stops) for _ in rows]
    logprobs: list[list[float]] = [[] for _ in rows]

    def close(row: int, last: str) -> Delta:
        number, sample = divmod(row, decoding.num_samples)
        start = len(prompt_ids[number])
        completion = Completion(
            prompt=prompts[number],
            text=readers[row].text,
            prompt_ids=prompt_ids[number],
            ids=decoding.sequences[row][start:],
            logprobs=logprobs[row],
            finish_reason=decoding.finished[row],
            sample=sample,
            seed=decoding.seed,
        )
        return Delta(row, last, completion)

    for row in decoding.finished:  # no room for even one token
        yield close(row, "")
    while decoding.active:
        for token in decoding.step():
            reader = readers[token.row]
            logprobs[token.row].append(token.logprob)
            # A stop token ends the row and is not text.
            piece = "" if token.id in decoding.stop_ids else reader.push(token.id)
            if reader.stopped:
                decoding.finish(token.row, "stop")
            if token.row in decoding.finished:
                yield close(token.row, piece + reader.finish())
            elif piece:
                yield Delta(token.row, piece)


class _Reader:
    """Ids to text for one row, holding back what may turn out to be a stop string."""

    def __init__(self, tokenizer: Tokenizer, stops: list[str]) -> None:
        self.text = ""
        self.stopped = False
        self._decoder = tokenizer.stream_decoder()
        self._stops = stops
        self._held = ""

    def push(self, id: int) -> str:
        """The text that is certain after one more token."""
        return self._release(self._decoder.push(id), final=False)

    def finish(self) -> str:
        """The rest of the text."""
        return "" if self.stopped else self._release(self._decoder.finish(), final=True)

    def _release(self, new: str, *, final: bool) -> str:
        self._held += new
        # (end, start) of each stop string; the first to be complete, and of those the longest,
        # so that it does not matter where one token ends and the next begins.
        found = [
            (start + len(stop), start)
            for stop in self._stops
            if (start := self._held.find(stop)) >= 0
        ]
        if found:
            self.stopped = True
            certain = min(found)[1]
        else:
            certain = len(self._held) - (0 if final else _overlap(self._held, self._stops))
        released, self._held = self._held[:certain], self._held[certain:]
        self.text += released
        return released


def _overlap(text: str, stops: list[str]) -> int:
    """Length of the longest end of `text` with which a stop string begins.

    >>> _overlap("the end. Q", ["Q:", "###"])
    1
    """
    lengths = range(min(len(text), max(map(len, stops), default=0)), 0, -1)
    return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in stops)), 0)


def _listed(texts: Any) -> list[Any]:
    """Several texts, or one; what is neither stands alone, to be refused by its name."""
    return (
        list(texts)
        if isinstance(texts, Iterable) and not isinstance(texts, str | bytes | Mapping)
        else [texts]
    )


def _configure(config: SamplingConfig | None, settings: dict[str, Any]) -> SamplingConfig:
    if config is not None and not isinstance(config, SamplingConfig):
        raise SamplingError(
            f"config is {config!r}, a {type(config).__name__}; give a SamplingConfig, or its "
            "fields by name, such as top_k=5"
        )
    known = [field.name for field in dataclasses.fields(SamplingConfig)]
    if unknown := [name for name in settings if name not in known]:
        known += ["num_samples", "stop", "stop_ids"]
        raise SamplingError(
            f"there is no sampling setting {unknown[0]!r}; known: {', '.join(known)}."
            f"{did_you_mean(unknown[0], known)}"
        )
    return dataclasses.replace(config or SamplingConfig(), **settings)
