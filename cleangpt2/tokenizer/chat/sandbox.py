"""Chat templates of strangers, run where they can do no harm and by the rules of transformers.

A chat template is a Jinja program that anybody may have put into a model's folder. Jinja's
sandbox keeps it from Python's insides and from changing what it is given; the filters, the
functions and the handling of white space are those that transformers offers, so that the same
template gives the same text there and here. Needs jinja2, which torch brings along.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

from cleangpt2.errors import ConfigError, TokenizerError

_SAFE = (3, 1, 6)  # the sandbox of earlier versions has known holes
_OPEN, _CLOSE = "generation_opens", "generation_closes"


class Program:
    """A chat template, ready to run."""

    def __init__(self, text: str) -> None:
        """Compile a template.

        Raises:
            ConfigError: The installed jinja2 is too old to be trusted with it.
            TokenizerError: It is no Jinja.
        """
        if tuple(map(int, jinja2.__version__.split(".")[:3])) < _SAFE:
            raise ConfigError(
                f"chat templates need jinja2 3.1.6, whose sandbox holds, not {jinja2.__version__}: "
                "pip install -U jinja2"
            )
        try:
            tree = _environment().parse(text)
            self._template = _environment().from_string(text)
        except Exception as error:  # a stranger's program can fail in any way
            raise TokenizerError(f"the chat template is no Jinja ({_line(error)})") from None
        self.marks_generation = any(n.name == _OPEN for n in tree.find_all(nodes.Name))
        """Whether it says with ``{% generation %}`` what a model is to learn."""
        self.reads_input = any(
            node.attr == "input" if isinstance(node, nodes.Getattr) else _is_input(node.arg)
            for node in tree.find_all((nodes.Getattr, nodes.Getitem))
        )
        """Whether it knows Alpaca's ``input`` beside a message's ``content``."""

    def run(
        self, messages: Sequence[Mapping[str, str]], marks: tuple[str, str], **variables: Any
    ) -> str:
        """The text of a conversation.

        Args:
            messages: Each with ``role`` and ``content``.
            marks: What to write where a ``{% generation %}`` block begins and where it ends.
            variables: What else the template may read.

        Raises:
            TokenizerError: The template refuses the conversation, or fails.
        """
        opens, closes = marks
        # Templates ask whether there are tools or documents, and transformers always says so.
        known = {"tools": None, "documents": None, _OPEN: opens, _CLOSE: closes}
        try:
            return self._template.render(known, messages=messages, **variables)
        except Exception as error:  # as above
            raise TokenizerError(
                f"the chat template cannot render this conversation ({_line(error)}); "
                "change the messages, or choose another template"
            ) from None


class _Generation(Extension):
    """``{% generation %} ... {% endgeneration %}``: the body, between two marks."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja has it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        opens, closes = (nodes.Output([nodes.Name(name, "load")]) for name in (_OPEN, _CLOSE))
        # A scope of its own, as in transformers, where the body is a call.
        return [node.set_lineno(line) for node in (opens, nodes.Scope(body), closes)]


class _Dict:
    """``dict`` without its attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """``namespace`` that holds no name with an underscore before it; `self` is a fine name."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _refuse_private(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


@lru_cache(1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    functions: dict[str, Any] = {
        "raise_exception": _refuse,
        "strftime_now": _now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    environment.globals.update(functions)
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own filter writes it for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _now(format: str) -> str:
    return datetime.now().strftime(format)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may not hold {name!r}")


def _is_input(index: nodes.Node) -> bool:
    return isinstance(index, nodes.Const) and index.value == "input"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
