"""Templates of strangers: what they may not do, and what they may as under transformers."""

import pytest

from cleangpt2.errors import ConfigError, TokenizerError
from cleangpt2.tokenizer.chat import Message, load_template, sandbox
from cleangpt2.tokenizer.chat.sandbox import Program
from tests.helpers import run_python

MESSAGES = [{"role": "user", "content": "a"}]

ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ().__class__.__bases__[0].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ strftime_now.__globals__['json'] }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ dict.__class__.__mro__ }}",
    "{{ namespace.__init__.__globals__['sys'] }}",
    "{{ (messages | attr('__class__')).__mro__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{% set n = namespace(__class__=1) %}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "{{ messages.append({}) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages.pop() }}",
    "{% for i in range(100001) %}{% endfor %}",
    "{% include 'merges.txt' %}",
    "{% import 'merges.txt' as m %}",
    "{{ 1 / 0 }}",
    "{{ raise_exception('no\nsuch turn') }}",
]


@pytest.mark.parametrize("jinja", ESCAPES)
def test_a_way_out_of_the_sandbox_costs_one_line(jinja):
    messages = [dict(message) for message in MESSAGES]
    with pytest.raises(TokenizerError, match="the chat template cannot render") as error:
        Program(jinja).run(messages, ("", ""))
    assert "\n" not in str(error.value)
    assert messages == MESSAGES


def test_what_is_unsafe_renders_as_nothing():
    assert (
        Program("[{{ ''.__class__ }}{{ dict.fromkeys.__self__ }}]").run(MESSAGES, ("", "")) == "[]"
    )


def test_content_is_never_run():
    chat = "{{ 7 * 7 }}{% raw %}{{ messages }}"
    text = Program("{{ messages[0].content }}").run([{"role": "user", "content": chat}], ("", ""))
    assert text == chat


def test_white_space_and_marks_are_those_of_transformers():
    body = "    {% generation %}\n{{ m.content }}{% endgeneration %}\n"
    jinja = "{% for m in messages %}\n" + body + "{% endfor %}"
    assert Program(jinja).marks_generation
    assert Program(jinja).run(MESSAGES, ("[", "]")) == "[a]"
    assert not Program("{{ messages }}").marks_generation


def test_a_generation_block_is_a_scope():
    jinja = "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}"
    assert Program(jinja).run(MESSAGES, ("[", "]")) == "[2]1"


@pytest.mark.parametrize("jinja", ["{{ m.input }}", "{{ messages[0]['input'] }}"])
def test_it_is_known_whether_a_template_reads_the_input(jinja):
    assert Program(jinja).reads_input
    assert not Program("{{ input }}{{ m.content }}{{ m['role'] }}").reads_input


def test_an_old_jinja_is_not_trusted(monkeypatch):
    monkeypatch.setattr(sandbox.jinja2, "__version__", "3.1.5")
    with pytest.raises(ConfigError, match=r"need jinja2 3\.1\.6.*not 3\.1\.5"):
        Program("{{ messages }}")


def test_without_jinja_the_tokenizer_works_and_a_template_says_what_it_needs():
    script = """
import sys
sys.modules["jinja2"] = None
from cleangpt2.errors import ConfigError
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.chat import load_template
tok = Tokenizer.train(["low low lower"], 258)
print(tok.decode(tok.encode("low")))
try:
    load_template("plain", tok)
except ConfigError as error:
    print(error)
"""
    done = run_python("-c", script)
    assert done.stdout.splitlines() == ["low", "chat templates need jinja2: pip install jinja2"]


def test_a_refused_conversation_names_the_reason(tokenizer, tmp_path):
    path = tmp_path / "strict.jinja"
    path.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
        "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}",
        encoding="utf-8",
    )
    template = load_template(path, tokenizer)
    with pytest.raises(TokenizerError, match=r"cannot render .*\(no system message\); change"):
        template.prompt([Message("system", "a"), Message("user", "b")])
