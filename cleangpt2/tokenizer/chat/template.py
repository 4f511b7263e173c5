"""A chat template bound to a tokenizer: conversations to ids, and what is learned of them.

The text is cut at control tokens, where a prompt ends and where a trained part begins or ends;
what lies between two cuts is one text for the tokenizer. So the ids up to an answer are those that
``prompt`` gives, token for token: what a model sees in training is what it sees when it is
asked. They are also those of any other library that encodes the rendered prompt whole, as long
as no earlier answer begins with something that merges with the template's text before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from cleangpt2.errors import ConfigError, TokenizerError, did_you_mean
from cleangpt2.files import read_text
from cleangpt2.tokenizer.chat.builtin import BUILTIN, CHATML_TOKENS
from cleangpt2.tokenizer.chat.layout import Layout, Renderer
from cleangpt2.tokenizer.chat.messages import Message
from cleangpt2.tokenizer.files import token_roles
from cleangpt2.tokenizer.tokenizer import Tokenizer

_PROBE = (Message("user", "a"), Message("assistant", "b"))


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The ids of a conversation, and which of them a model is to learn."""

    ids: Int32[np.ndarray, " T"]
    mask: Bool[np.ndarray, " T"]
    """True for the tokens of an answer and for the one that ends it."""


class _Piece(NamedTuple):
    text: str
    is_control: bool
    is_trained: bool


class ChatTemplate:
    """How conversations become ids.

    >>> tok = Tokenizer.train(["low low low lower lowest"], vocab_size=261)
    >>> chat = load_template("plain", tok)
    >>> conversation = [Message("user", "low"), Message("assistant", " low")]
    >>> encoded = chat.encode(conversation)
    >>> encoded.ids.tolist(), encoded.mask.tolist(), chat.end_id
    ([257, 258, 260], [False, True, True], 260)
    >>> chat.prompt(conversation[:1])
    [257]
    """

    def __init__(self, jinja: str, tokenizer: Tokenizer, name: str = "custom") -> None:
        """Bind a template to a tokenizer.

        Args:
            jinja: The template, a Jinja program as transformers runs it.
            tokenizer: Knows the control tokens that the template writes.
            name: What to call it in messages.

        Raises:
            TokenizerError: It is no Jinja, fails, or ends no answer with a control token.
            ConfigError: There is no jinja2, or an old one.
        """
        self.name, self.jinja = name, jinja
        self.tokenizer = _with_template(tokenizer, jinja)
        """The tokenizer to save: ``tokenizer_config.json`` gets this template."""
        self._special = tokenizer.special_tokens
        roles = token_roles(tokenizer.vocabulary)
        variables = {role: text for role, text in roles.items() if text is not None}
        self._renderer = Renderer(name, jinja, list(self._special), variables)
        self.end_id: int = self._find_end()
        """The token that ends an answer, and is learned with it."""
        eos = self._special.get(variables.get("eos_token", ""), self.end_id)
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self.end_id, eos)))
        """The tokens after which nothing more belongs to an answer: `end_id` and end of text."""

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation: what transformers' ``apply_chat_template`` gives.

        Args:
            messages: A conversation.
            add_generation_prompt: End with what comes before an answer.

        Raises:
            TokenizerError: The template refuses the conversation.
        """
        return self._renderer.render(messages, add_generation_prompt=add_generation_prompt)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids after which the model is to answer.

        Raises:
            TokenizerError: See ``encode``.
        """
        layout = self._renderer.lay_out(messages, is_prompt=True)
        return self._join([list(self._pieces(layout))])[0].ids.tolist()

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """The ids of a conversation; every answer is to be learned.

        Raises:
            TokenizerError: The template refuses the conversation, renders its beginning otherwise
                than it would render the prompt, or hides what in it is the text of a message.
        """
        return self._join([list(self._pieces(self._renderer.lay_out(messages)))])[0]

    def encode_batch(self, conversations: Sequence[Sequence[Message]]) -> list[Encoded]:
        """What ``encode`` gives for each conversation, faster.

        Raises:
            TokenizerError: As ``encode``; it says which conversation, counted from 1.
        """
        rows = []
        for number, messages in enumerate(conversations, start=1):
            try:
                rows.append(list(self._pieces(self._renderer.lay_out(messages))))
            except TokenizerError as error:
                raise TokenizerError(f"conversation {number}: {error}") from None
        return self._join(rows)

    def _pieces(self, layout: Layout) -> Iterator[_Piece]:
        """The texts between two cuts, and the control tokens."""
        text, ends = layout.text, [place for span in layout.trained for place in span]
        for start, end in pairwise(sorted({0, len(text), *layout.prompts, *ends})):
            is_trained = any(first <= start < last for first, last in layout.trained)
            for number, part in enumerate(self._renderer.controls.split(text[start:end])):
                if part:  # `split` gives text, control token, text, ...
                    yield _Piece(layout.disguise.undo(part), number % 2 == 1, is_trained)

    def _join(self, rows: Sequence[Sequence[_Piece]]) -> list[Encoded]:
        """The ids of each row; what many rows have in common is encoded once."""
        texts = list({piece.text: None for row in rows for piece in row if not piece.is_control})
        known = dict(zip(texts, self.tokenizer.encode_batch(texts), strict=True))
        return [self._encoded(row, known) for row in rows]

    def _encoded(self, row: Sequence[_Piece], known: Mapping[str, list[int]]) -> Encoded:
        ids = [[self._special[p.text]] if p.is_control else known[p.text] for p in row]
        trained = np.array([piece.is_trained for piece in row], np.bool_)
        lengths = np.array([len(part) for part in ids], np.int64)
        mask = np.repeat(trained, lengths)
        return Encoded(np.array([i for part in ids for i in part], np.int32), mask)

    def _find_end(self) -> int:
        """The last token that is learned of an answer, which has to be a control token."""
        encoded = self.encode(_PROBE)
        learned = encoded.ids[encoded.mask].tolist()
        if not learned or learned[-1] not in self._special.values():
            raise TokenizerError(
                f"the chat template {self.name} does not train the token that ends an answer, so a "
                "model would never stop: its {% generation %} block must end behind a control "
                "token of this vocabulary"
            )
        return learned[-1]


def load_template(name: str | Path | None, tokenizer: Tokenizer) -> ChatTemplate:
    """The chat template of this name, or the one that suits the tokenizer.

    Args:
        name: "plain", "alpaca", "chatml" or a file with a Jinja template. ``None`` takes the one
            that the tokenizer's folder brought along; if there is none, chatml where the
            vocabulary has its control tokens, and alpaca elsewhere.
        tokenizer: Gets what the template needs; take ``ChatTemplate.tokenizer`` from then on.

    Raises:
        ConfigError: There is no such template.
        TokenizerError: It cannot be used with this tokenizer.
    """
    own = tokenizer.vocabulary.settings.get("chat_template")
    if name is None and own:
        known = {jinja: name for name, jinja in BUILTIN.items()}
        return ChatTemplate(own, tokenizer, known.get(own, "of the model"))
    if name is None:
        has_chatml = set(CHATML_TOKENS) <= set(tokenizer.special_tokens)
        name = "chatml" if has_chatml else "alpaca"
    if name not in BUILTIN:
        return ChatTemplate(_read(Path(name).expanduser()), tokenizer, str(name))
    if name == "chatml":
        tokenizer = tokenizer.add_special_tokens(*CHATML_TOKENS)
    else:
        _ = tokenizer.eos_id  # refuses a vocabulary without one
    return ChatTemplate(BUILTIN[name], tokenizer, name)


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"no chat template {str(path)!r} ({why}): name {', '.join(BUILTIN)} or a file with a "
            f"Jinja template.{did_you_mean(str(path), BUILTIN)}"
        ) from None


def _with_template(tokenizer: Tokenizer, jinja: str) -> Tokenizer:
    vocabulary = tokenizer.vocabulary
    if vocabulary.settings.get("chat_template") == jinja:
        return tokenizer
    settings = {**vocabulary.settings, "chat_template": jinja}
    return Tokenizer(replace(vocabulary, settings=settings))
