"""From messages to a text and the places in it that matter: where prompts end, what is learned."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cleangpt2.errors import ConfigError, TokenizerError
from cleangpt2.tokenizer.chat.disguise import Disguise, one_of
from cleangpt2.tokenizer.chat.messages import Message, as_dicts

Dicts = list[dict[str, str]]
Span = tuple[int, int]

_NO_MARKS = ("", "")


class Layout(NamedTuple):
    """A rendered conversation, still in disguise."""

    text: str
    prompts: list[int]
    """Where the prompt of each answer ends."""
    trained: list[Span]
    """What is to be learned: first character, and the one after the last."""
    disguise: Disguise


class Renderer:
    """Runs one chat template with one set of control tokens."""

    def __init__(
        self, name: str, jinja: str, controls: Sequence[str], variables: Mapping[str, str]
    ) -> None:
        """Compile the template.

        Args:
            name: What to call the template in messages.
            jinja: The template.
            controls: The texts of the control tokens.
            variables: What the template may read beside the messages, such as ``eos_token``.

        Raises:
            TokenizerError: It is no Jinja.
            ConfigError: There is no jinja2, or an old one.
        """
        try:
            sandbox = importlib.import_module("cleangpt2.tokenizer.chat.sandbox")
        except ImportError:
            raise ConfigError("chat templates need jinja2: pip install jinja2") from None
        self.name = name
        self.controls = one_of(controls)
        """Matches a control token; ``split`` gives text, token, text, ..."""
        self._jinja, self._names, self._variables = jinja, controls, variables
        self._program = sandbox.Program(jinja)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation, without any disguise."""
        return self._run(self._dicts(messages), _NO_MARKS, add_generation_prompt)

    def lay_out(self, messages: Sequence[Message], *, is_prompt: bool = False) -> Layout:
        """Render a conversation, and find where its prompts end and what of it is learned.

        Args:
            messages: A conversation.
            is_prompt: It ends with what comes before an answer.

        Raises:
            TokenizerError: See ``ChatTemplate.encode``.
        """
        dicts = self._dicts(messages)
        disguise = Disguise(self._names, [self._jinja, *(t for row in dicts for t in row.values())])
        text, trained = _take_marks(self._hidden(dicts, disguise, is_prompt), disguise.marks)
        plain = disguise.undo(text)
        turns = [i for i, message in enumerate(messages) if message.role == "assistant"]
        prompts = [self._beginning(plain, dicts[:i], is_prompt=True) for i in turns]
        if not self._program.marks_generation:
            ends = [self._beginning(plain, dicts[: i + 1]) for i in turns]
            trained = [self._answer(text, *span) for span in zip(prompts, ends, strict=True)]
        return Layout(text, prompts, trained, disguise)

    def _beginning(self, plain: str, dicts: Dicts, *, is_prompt: bool = False) -> int:
        """How much of a rendering the rendering of its first messages takes."""
        beginning = self._run(dicts, _NO_MARKS, is_prompt)
        if not plain.startswith(beginning):
            raise TokenizerError(
                f"the chat template {self.name} renders the first {len(dicts)} messages otherwise "
                "when more follow, so a model would be trained on other prompts than it is "
                "given; keep to conversations of one answer, or choose another template"
            )
        return len(beginning)

    def _answer(self, text: str, start: int, end: int) -> Span:
        """The part of a turn that is learned: up to its last control token."""
        ends = [match.end() for match in self.controls.finditer(text, start, end)]
        if not ends:
            raise TokenizerError(
                f"the chat template {self.name} ends an answer without a control token of this "
                "vocabulary, so a model could not learn to stop; choose another, such as chatml"
            )
        return start, ends[-1]

    def _hidden(self, dicts: Dicts, disguise: Disguise, is_prompt: bool) -> str:
        """The marked rendering in which no character of a message can begin a control token.

        A template may look for something in a message (``'</think>' in message.content``) and
        not find it there in disguise. What then comes out is another text, and only the whole
        control tokens are hidden instead, if that leaves the same control tokens.
        """
        marks = disguise.marks
        plain = self._run(dicts, marks, is_prompt)
        if not disguise.needed(text for row in dicts for text in row.values()):
            return plain
        hidden = self._run(_changed(dicts, disguise.everywhere), marks, is_prompt)
        if disguise.undo(hidden) == plain:
            return hidden
        partly = self._run(_changed(dicts, disguise.in_names), marks, is_prompt)
        same = self.controls.findall(partly) == self.controls.findall(hidden)
        if same and disguise.undo(partly) == plain:
            return partly
        raise TokenizerError(
            f"the chat template {self.name} changes the text of messages, so that its control "
            "tokens cannot be told from text that looks like them; choose another template, or "
            "leave out conversations with such text"
        )

    def _run(self, dicts: Dicts, marks: tuple[str, str], is_prompt: bool) -> str:
        return self._program.run(dicts, marks, add_generation_prompt=is_prompt, **self._variables)

    def _dicts(self, messages: Sequence[Message]) -> Dicts:
        return as_dicts(messages, with_input=self._program.reads_input)


def _changed(dicts: Dicts, change: Callable[[str], str]) -> Dicts:
    """The messages with every text of theirs changed."""
    return [
        {key: text if key == "role" else change(text) for key, text in row.items()} for row in dicts
    ]


def _take_marks(text: str, marks: tuple[str, str]) -> tuple[str, list[Span]]:
    """A text without its marks, and what stood between them.

    >>> _take_marks("a[b]c", ("[", "]"))
    ('abc', [(1, 2)])
    """
    kept, spans = "", []
    for part in text.split(marks[0]):
        inside, closed, after = part.partition(marks[1])
        if closed:
            spans.append((len(kept), len(kept) + len(inside)))
        kept += inside + after
    return kept, spans
