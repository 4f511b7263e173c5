"""Chat templates against transformers, from a folder that we saved."""

import numpy as np
import pytest

from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.chat import ChatTemplate, load_template
from tests.helpers import require
from tests.tokenizer.chat.conftest import conversation
from tests.tokenizer.chat.test_template import CUSTOM, suits

# Whatever transformers offers to a template beside the messages.
EVERYTHING = """{%- set ns = namespace(n=0) -%}
{%- for m in messages -%}
    {%- if loop.index0 == 40 -%}{%- break -%}{%- endif -%}
    {%- set ns.n = ns.n + 1 -%}
{{ '<|im_start|>' + m.role + ' ' + ns.n | string }}
{{ m.content | tojson }} {{ dict(a=m.content)['a'] | trim }}{{ [1, 'é'] | tojson(indent=1) }}
    {%- if tools is none and documents is none %} {{ bos_token + pad_token }}{% endif %}
{{ '<|im_end|>' }}
{% endfor %}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant ' + (ns.n + 1) | string }}
{% endif -%}
"""
TEMPLATES = {**dict.fromkeys(("plain", "alpaca", "chatml")), **CUSTOM, "everything": EVERYTHING}


def transformers_tokenizer(template, folder):
    """The same tokenizer and template, as transformers reads them from our files."""
    template.tokenizer.save(folder)
    return require("transformers").AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def story():
    return Tokenizer.from_pretrained("story")


@pytest.fixture(scope="module", params=TEMPLATES)
def both(request, story, tmp_path_factory):
    """A template of ours, transformers' tokenizer with the same, and its name."""
    jinja = TEMPLATES[request.param]
    ours = ChatTemplate(jinja, story) if jinja else load_template(request.param, story)
    theirs = transformers_tokenizer(ours, tmp_path_factory.mktemp("saved"))
    assert theirs.chat_template == ours.jinja
    return ours, theirs, request.param


def as_transformers_takes_them(messages, name):
    """Its own form: only the alpaca template knows an input of its own."""
    rows = []
    for m in messages:
        joined = m.content if name == "alpaca" or not m.input else f"{m.content}\n\n{m.input}"
        extra = {"input": m.input} if name == "alpaca" and m.input else {}
        rows.append({"role": m.role, "content": joined, **extra})
    return rows


def conversations(name, count, *, hostile):
    rows = (conversation(seed, hostile=hostile) for seed in range(count))
    return [messages for messages in rows if suits(name, messages)]


@pytest.mark.parametrize("hostile", [False, True])
def test_the_text_is_that_of_transformers(both, hostile):
    ours, theirs, name = both
    for messages in conversations(name, 500, hostile=hostile):  # 1,000 with both kinds
        for turns, asks in ((messages, False), (messages[:-1], True)):
            rows = as_transformers_takes_them(turns, name)
            expected = theirs.apply_chat_template(rows, tokenize=False, add_generation_prompt=asks)
            assert ours.render(turns, add_generation_prompt=asks) == expected


def test_the_ids_of_a_first_prompt_are_those_of_transformers_whatever_it_says(both):
    ours, theirs, name = both
    compared = 0
    for messages in (
        *conversations(name, 100, hostile=False),
        *conversations(name, 300, hostile=True),
    ):
        first = messages[: [m.role for m in messages].index("assistant")]
        if any(c in m.content + m.input for m in first for c in ours.tokenizer.special_tokens):
            continue  # which transformers takes for control tokens
        rows = as_transformers_takes_them(first, name)
        prompt = theirs.apply_chat_template(rows, add_generation_prompt=True, return_dict=True)
        assert ours.prompt(first) == prompt["input_ids"]
        compared += 1
    assert compared > 150


def test_ids_and_mask_are_those_of_transformers_where_nothing_merges(both):
    ours, theirs, name = both
    if name == "plain":
        return  # an answer that follows a prompt without a space merges with it there, never here
    marks = "{%- generation -%}" in ours.jinja
    for messages in conversations(name, 100, hostile=False):
        rows = as_transformers_takes_them(messages, name)
        whole = theirs.apply_chat_template(
            rows, return_dict=True, return_assistant_tokens_mask=marks
        )
        encoded = ours.encode(messages)
        assert encoded.ids.tolist() == whole["input_ids"]
        assert not marks or encoded.mask.tolist() == [m == 1 for m in whole["assistant_masks"]]


@pytest.mark.slow
def test_gpt2_with_two_added_tokens(shared_data, tmp_path):
    ours = load_template("chatml", Tokenizer.from_pretrained(shared_data / "gpt2"))
    assert ours.tokenizer.special_tokens["<|im_end|>"] == ours.end_id == 50258
    theirs = transformers_tokenizer(ours, tmp_path)
    for messages in conversations("chatml", 50, hostile=False):
        rows = as_transformers_takes_them(messages, "chatml")
        whole = theirs.apply_chat_template(rows, return_dict=True)["input_ids"]
        np.testing.assert_array_equal(ours.encode(messages).ids, whole)
