"""A conversation with a model: what was said so far, and the next answer, piece by piece.

A model that was taught to answer gets the messages through its chat template. A base model has
none: it goes on with the text of all that was said.

The context is finite. A prompt leaves room for the answer, and what does not fit falls away from
its beginning in whole turns, a message and its answer; the system message stays.
"""

import secrets
from collections.abc import Generator
from dataclasses import dataclass, replace

from cleangpt2.completion.completion import Completion
from cleangpt2.completion.generation import stream_all
from cleangpt2.completion.prompts import Prompt
from cleangpt2.errors import ConfigError, ContextLengthError, InputError
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.chat import ChatTemplate, Message


@dataclass(frozen=True, slots=True)
class Turn:
    """A message and the answer to it."""

    message: str
    answer: str
    completion: Completion | None
    """How the answer came about; ``None`` where it was broken off."""
    attempt: int = 0
    """Which of the answers to this message it is."""


class Conversation:
    """Messages and answers, and the model that answers.

    conversation = Conversation(model, tokenizer, load_template(None, tokenizer), seed=1)
    for piece in conversation.ask("Name a colour."):
        print(piece, end="", flush=True)
    """

    def __init__(
        self,
        model: GPT2,
        tokenizer: Tokenizer,
        template: ChatTemplate | None = None,
        *,
        system: str = "",
        config: SamplingConfig | None = None,
    ) -> None:
        """Begin a conversation.

        Args:
            template: ``None`` for a base model, which continues the text of all that was said.
            system: What the model is told before the first message.
            config: How tokens are chosen. The same seed and messages give the same answers.

        Raises:
            ConfigError: The template writes tokens that the model does not know, or there is a
                system message and no template that could lay it out.
        """
        if template is not None and template.tokenizer.vocab_size > model.config.vocab_size:
            raise ConfigError(
                f"the chat template {template.name} needs {template.tokenizer.vocab_size:,} tokens "
                f"and the model knows {model.config.vocab_size:,}: choose another, such as alpaca"
            )
        if template is None and system:
            raise ConfigError(
                "a base model has no place for a system message: leave it out, or choose a "
                "template, such as alpaca"
            )
        self.model, self.template, self.system = model, template, system
        self.tokenizer = tokenizer if template is None else template.tokenizer
        config = config or SamplingConfig()
        seed = secrets.randbits(32) if config.seed is None else config.seed
        self.config = replace(config, seed=seed)
        self.turns: list[Turn] = []
        self.forgotten = 0
        """How many of the turns, the oldest, the last prompt had no room for."""

    @property
    def room(self) -> int:
        """The tokens of the context that a prompt leaves to its answer: a quarter at most."""
        return min(self.config.max_new_tokens, max(self.model.config.n_positions // 4, 1))

    def ask(self, message: str, *, attempt: int = 0) -> Generator[str, None, None]:
        """The answer to a message, as it is written.

        The turn is kept when the answer ends. It may be broken off (``close`` the generator, or
        Ctrl-C): then what was written of it is the answer, and if nothing was, there is no turn.

        Args:
            message: What to say to the model.
            attempt: Another number gives another answer from the same seed.

        Raises:
            ContextLengthError: The message alone leaves no room for an answer.
        """
        prompt, self.forgotten = self.fit(message)
        stop_ids = [self.tokenizer.eos_id] if self.template is None else self.template.stop_ids
        seed = ((self.config.seed or 0) + attempt) % (1 << 64)
        deltas = stream_all(
            self.model, self.tokenizer, prompt, config=self.config, seed=seed, stop_ids=stop_ids
        )
        answer, completion = "", None
        try:
            for delta in deltas:
                answer, completion = answer + delta.text, delta.completion
                yield delta.text
        finally:
            if answer or completion:
                self.turns.append(Turn(message, answer, completion, attempt))

    def retry(self) -> Generator[str, None, None]:
        """Another answer to the last message, in place of the one it got.

        Raises:
            InputError: Nothing was said yet.
        """
        last = self.undo()
        count = len(self.turns)
        try:
            yield from self.ask(last.message, attempt=last.attempt + 1)
        finally:
            if len(self.turns) == count:  # nothing came in its place
                self.turns.append(last)

    def undo(self) -> Turn:
        """Take back the last message and its answer.

        Raises:
            InputError: Nothing was said yet.
        """
        if not self.turns:
            raise InputError("nothing was said yet that could be taken back")
        return self.turns.pop()

    def reset(self) -> None:
        """Forget all that was said; the system message stays."""
        self.turns.clear()
        self.forgotten = 0

    def messages(self, first: int = 0) -> list[Message]:
        """What was said from a turn on, with the system message before it."""
        said = [Message("system", self.system)] if self.system else []
        for turn in self.turns[first:]:
            said += [Message("user", turn.message), Message("assistant", turn.answer)]
        return said

    def texts(self, first: int = 0) -> list[str]:
        """What was said from a turn on as a base model reads it.

        Where the model ended a text, another begins. The last is the one to go on with, and empty
        if there is none.
        """
        texts = [""]
        for turn in self.turns[first:]:
            texts[-1] = joined(texts[-1], turn.message) + turn.answer
            if turn.completion is not None and turn.completion.finish_reason == "stop":
                texts.append("")
        return texts

    def fit(self, message: str) -> tuple[Prompt, int]:
        """The prompt for the next answer, and how many turns have no room in it.

        Raises:
            ContextLengthError: The message alone leaves no room for an answer.
        """
        most = self.model.config.n_positions - self.room
        fitting, first = self._prompt(message, len(self.turns)), len(self.turns)
        if len(fitting.ids) > most:
            beside = " with the system message" if self.system else ""
            raise ContextLengthError(
                f"the message takes {len(fitting.ids):,} tokens{beside}, and at most {most:,} fit: "
                f"the model's context has {self.model.config.n_positions:,}, of which an answer "
                f"needs {self.room:,}; shorten it"
            )
        # From the newest turn back, so that the work is bounded by the context, not the talk.
        while first > 0 and len((longer := self._prompt(message, first - 1)).ids) <= most:
            fitting, first = longer, first - 1
        return fitting, first

    def _prompt(self, message: str, first: int) -> Prompt:
        if self.template is None:
            return Prompt.read(joined(self.texts(first)[-1], message), self.tokenizer)
        messages = [*self.messages(first), Message("user", message)]
        text = self.template.render(messages, add_generation_prompt=True)
        return Prompt(text, self.template.prompt(messages))


def joined(text: str, message: str) -> str:
    """A text and what a person adds to it, who types no space before a word.

    >>> joined("The dog", "ran"), joined("The dog", "."), joined("", "ran")
    ('The dog ran', 'The dog.', 'ran')
    """
    is_word_on_word = message[:1].isalnum() and text != "" and not text[-1].isspace()
    return f"{text} {message}" if is_word_on_word else text + message
