"""What a caller asks for in words, as settings and filters of the sampler, which knows only ids."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from cleangpt2.completion.bans import Bans
from cleangpt2.completion.healing import Healing
from cleangpt2.completion.prefixes import Prefixes
from cleangpt2.completion.prompts import Prompt, listed
from cleangpt2.errors import SamplingError, did_you_mean
from cleangpt2.sampler.config import BeamConfig, ContrastiveConfig, SamplingConfig
from cleangpt2.sampler.pipeline import Filter
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.bpe import to_bytes

OTHERS = ("num_samples", "stop", "stop_ids", "heal", "ban", "bias", "start", "filters")
"""What `stream_all` takes beside the fields of `SamplingConfig`."""


class TextRules:
    """The prompts of one generation, read, and the filters that look at text."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompts: str | Prompt | Sequence[str | Prompt],
        *,
        heal: bool,
        ban: str | Sequence[str] | None,
        start: str,
        filters: Filter | Sequence[Filter],
    ) -> None:
        """Check everything and encode the prompts.

        Raises:
            SamplingError: Something of another type, or rules that contradict each other.
            InputError: A prompt that is no text.
        """
        self._bans = checked_texts(ban, "ban", "banned")
        if any("\ufffd" in text for text in self._bans):
            raise SamplingError("a ban holds U+FFFD, which stands for bytes that are no text")
        self._others = _checked_filters(filters)
        self._tokenizer = tokenizer
        self._prefixes = Prefixes(tokenizer.vocabulary.ids) if heal or self._bans else None
        heal_with = self._prefixes if heal else None
        self.prompts = [Prompt.read(text, tokenizer, heal_with) for text in listed(prompts)]
        if start and heal:
            raise SamplingError(
                "start and heal exclude each other: put the text of start at the prompt's end"
            )
        if not isinstance(start, str):
            raise SamplingError(f"start {start!r} is no text; token ids go to forced_start")
        for prompt in self.prompts if start else ():
            _refuse_banned_start(prompt.text, start, self._bans)

    def filters(
        self, at_work: Callable[[], Iterable[Prompt]], stop_ids: Collection[int]
    ) -> list[Filter]:
        """Healing, then bans, then the caller's own.

        Args:
            at_work: Gives the prompt of each row at work, in their order.
            stop_ids: Tokens that end a text and do not belong to it.
        """
        if self._prefixes is None:
            return self._others
        ours: list[Filter] = []
        if any(prompt.healed for prompt in self.prompts):
            ours.append(Healing(self._tokenizer, self._prefixes, at_work))
        if self._bans:
            ends = listed(stop_ids)  # Decoding refuses what is no list
            ours.append(Bans(self._bans, self._tokenizer, self._prefixes, at_work, ends))
        return ours + self._others


def checked_texts(texts: str | Sequence[str] | None, kind: str, otherwise: str) -> list[str]:
    """Stop strings or bans as a list of texts, none of them empty.

    Args:
        kind: What they are called in an error.
        otherwise: The setting for ids that are given instead of texts.

    Raises:
        SamplingError: One is empty or no text.
        TokenizerError: One has no bytes, for it holds half a character.
    """
    checked = [] if texts is None else listed(texts)
    for text in checked:
        if not isinstance(text, str):
            raise SamplingError(f"{kind} {text!r} is no text; token ids go to {otherwise}")
        if not text:
            raise SamplingError(f"a {kind} is empty: every text contains it; leave it out")
        to_bytes(text)  # refuses what no tokens could ever write
    return checked


def configure(
    cls: Any,
    config: Any,
    settings: Mapping[str, Any],
    others: Sequence[str] = OTHERS,
    example: str = "top_k=5",
) -> Any:
    """The config with some of its fields replaced.

    Args:
        cls: The class of the config, a dataclass.
        config: ``None`` stands for the defaults.
        others: What else the caller takes by name, for the error about an unknown one.
    """
    fields = [field.name for field in dataclasses.fields(cls)]
    if config is not None and not isinstance(config, cls):
        raise SamplingError(
            f"config is {config!r}, a {type(config).__name__}; give a {cls.__name__}, or its "
            f"fields by name, such as {example}"
        )
    for name in settings:
        if name not in fields:
            raise SamplingError(_no_such_setting(name, [*fields, *others]))
    return dataclasses.replace(cls() if config is None else config, **as_tuples(settings))


def _no_such_setting(name: str, known: Sequence[str]) -> str:
    """What to say of a setting that is not known here, or to another function alone."""
    homes = {
        "generate": {*SamplingConfig.__dataclass_fields__, *OTHERS},
        "beam_search": set(BeamConfig.__dataclass_fields__),
        "contrastive_search": set(ContrastiveConfig.__dataclass_fields__),
    }
    for function, names in homes.items():
        if name in names:
            return f"{name} is a setting of {function}; known here: {', '.join(known)}."
    hint = did_you_mean(name, known)
    return f"there is no sampling setting {name!r}; known: {', '.join(known)}.{hint}"


def as_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with ids in tuples, as `SamplingConfig` has them, where they came in lists.

    Biases may come by id, as in OpenAI's API.

    >>> as_tuples({"banned": [[464, 3290], [13]], "logit_bias": {464: 2.0}, "top_k": 5})
    {'banned': ((464, 3290), (13,)), 'logit_bias': ((464, 2.0),), 'top_k': 5}
    """
    changed = dict(settings)
    if isinstance(bias := changed.get("logit_bias"), Mapping):
        changed["logit_bias"] = tuple(bias.items())
    for name in changed.keys() & {"banned", "logit_bias", "forced_start"}:
        changed[name] = _as_tuple(changed[name])
    return changed


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value


def worded(
    config: SamplingConfig, tokenizer: Tokenizer, bias: Mapping[str, float] | None, start: str
) -> SamplingConfig:
    """The config with biases and a beginning that were given as text."""
    if bias:
        if not isinstance(bias, Mapping):
            raise SamplingError(f"bias is {bias!r}; give numbers by text, such as {{' dog': 2.5}}")
        for text, value in bias.items():
            if not isinstance(text, str):
                raise SamplingError(f"bias moves texts, not {text!r}; token ids go to logit_bias")
            if not isinstance(value, Real):
                raise SamplingError(f"the bias of {text!r} is {value!r}; give a number")
        biased = tuple((_one_token(text, tokenizer), value) for text, value in bias.items())
        config = dataclasses.replace(config, logit_bias=(*config.logit_bias, *biased))
    if start:
        if config.forced_start:
            raise SamplingError("start and forced_start both say how to begin; give one of them")
        config = dataclasses.replace(config, forced_start=tuple(tokenizer.encode(start)))
    return config


def _refuse_banned_start(prompt: str, start: str, bans: Sequence[str]) -> None:
    for ban in bans:
        if ban in prompt[max(len(prompt) - len(ban) + 1, 0) :] + start:
            raise SamplingError(f"start {start!r} would write {ban!r}, which ban forbids")


def _checked_filters(filters: Filter | Sequence[Filter]) -> list[Filter]:
    for function in listed(filters):
        if not callable(function):
            raise SamplingError(f"filter {function!r} is no function; give a list of functions")
    return listed(filters)


def _one_token(text: str, tokenizer: Tokenizer) -> int:
    """The id of a text that is one token."""
    ids = tokenizer.encode(text)
    if len(ids) == 1:
        return ids[0]
    parts = ", ".join(repr(tokenizer.decode([id])) for id in ids) or "none"
    spaced = f" {text}"
    hint = f"; {spaced!r} is one" if text and len(tokenizer.encode(spaced)) == 1 else ""
    raise SamplingError(f"bias moves one token, and {text!r} is {len(ids)}: {parts}{hint}")
