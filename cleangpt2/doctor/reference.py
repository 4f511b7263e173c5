"""What OpenAI's models must answer: published outputs, beside those of the model at hand.

The table is ``assets/reference/gpt2.json``; every row names its source and tolerance. The rows
compare lists of numbers, whatever they measure:

    parameters   how many there are
    ids          the tokens of a text
    weights      the first numbers of a stored tensor (four linear layers are stored transposed)
    logits       of the five likeliest next tokens, which must be the five largest as well
    attention    what token 1 pays to tokens 0 and 1, in layer 0, head 0
    loss         mean over a text, in nats a token
    hidden       the first numbers of the residual stream after ``ln_f``, at token 0
    greedy       the tokens that follow a prompt

float32 throughout, for so the numbers were published.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import torch
import torch.nn.functional as F

from cleangpt2.completion import generate
from cleangpt2.doctor.finding import Finding, guarded
from cleangpt2.model.convert.huggingface import TRANSPOSED
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.tokenizer import Tokenizer

SECTION = "published outputs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One published result."""

    check: str
    """What is measured: one of the words above."""
    name: str
    """Which text or tensor."""
    text: str = ""
    ids: tuple[int, ...] = ()
    """The tokens of `text`."""
    tokens: tuple[int, ...] = ()
    """The tokens whose logits are expected."""
    expected: tuple[float, ...]
    tolerance: float
    """Largest absolute difference."""
    source: str


def table() -> dict[str, list[Row]]:
    """Published size -> rows."""
    file = resources.files("cleangpt2") / "assets" / "reference" / "gpt2.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    return {size: [_row(values) for values in rows] for size, rows in content.items()}


def _row(values: dict[str, Any]) -> Row:
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    fields: dict[str, Any] = values | lists
    return Row(**fields)


def compare(model: GPT2, tokenizer: Tokenizer, rows: list[Row]) -> Iterator[Finding]:
    """One finding a row."""
    for row in rows:
        subject = f"{row.check}: {row.name}"
        yield from guarded(SECTION, subject, partial(_compare, model, tokenizer, row, subject))


def has_its_weights(model: GPT2, tokenizer: Tokenizer, rows: list[Row]) -> bool:
    """Whether the first numbers of its tensors are the published ones; False if none are known."""
    known = [row for row in rows if row.check == "weights"]
    found = compare(model, tokenizer, known)
    return bool(known) and all(finding.verdict == "ok" for finding in found)


def _compare(model: GPT2, tokenizer: Tokenizer, row: Row, subject: str) -> Iterator[Finding]:
    with torch.no_grad():
        measured = MEASURES[row.check](model, tokenizer, row)
    expected = row.expected * (len(measured) // len(row.expected) or 1)
    detail = f"(source: {row.source})"
    if len(measured) != len(expected):
        what = f"{len(measured)} numbers, published are {len(expected)} {detail}"
        yield Finding(SECTION, subject, "failed", what, ADVICE)
        return
    pairs = list(zip(measured, expected, strict=True))
    # `not <=` instead of `>`, so that NaN fails.
    wrong = [(a, b) for a, b in pairs if not abs(a - b) <= row.tolerance]
    if row.tolerance == 0:
        how, within = "equal", ""
    else:
        how = f"largest difference {max(abs(a - b) for a, b in pairs):.2g}"
        within = f", tolerance {row.tolerance:g}"
    if wrong:
        ours, theirs = wrong[0]
        what = f"{ours:.9g} where {theirs:.9g} is published{within} {detail}"
        yield Finding(SECTION, subject, "failed", what, ADVICE)
    else:
        yield Finding(SECTION, subject, "ok", f"{how}{within} {detail}")


ADVICE = (
    "if the checks above passed, the arithmetic is wrong on this device: try --device cpu, "
    "and report it with the output of --json"
)


# ---- what is measured ---------------------------------------------------------------------


def _parameters(model: GPT2, _tokenizer: Tokenizer, _row: Row) -> list[float]:
    return [sum(parameter.numel() for parameter in model.parameters())]


def _ids(_model: GPT2, tokenizer: Tokenizer, row: Row) -> list[float]:
    return [*tokenizer.encode(row.text)]


def _weights(model: GPT2, _tokenizer: Tokenizer, row: Row) -> list[float]:
    tensor = model.get_parameter(row.name).detach()
    stored = tensor.t() if TRANSPOSED.search(row.name) else tensor
    return stored.flatten()[: len(row.expected)].tolist()


def _logits(model: GPT2, _tokenizer: Tokenizer, row: Row) -> list[float]:
    last = model(row.ids)[-1]
    return [*last[list(row.tokens)].tolist(), *last.topk(len(row.tokens)).values.tolist()]


def _attention(model: GPT2, _tokenizer: Tokenizer, row: Row) -> list[float]:
    return model.trace(row.ids).attention["h.0"][0, 1, :2].tolist()


def _loss(model: GPT2, _tokenizer: Tokenizer, row: Row) -> list[float]:
    ids = model.check(row.ids)
    return [F.cross_entropy(model(ids[:-1]), ids[1:]).item()]


def _hidden(model: GPT2, _tokenizer: Tokenizer, row: Row) -> list[float]:
    return model.trace(row.ids).hidden["ln_f"][0, : len(row.expected)].tolist()


def _greedy(model: GPT2, tokenizer: Tokenizer, row: Row) -> list[float]:
    # The end token starts a text; as a prompt that is the empty one.
    prompt = "" if list(row.ids) == [tokenizer.eos_id] else row.text
    steps = len(row.expected)
    out = generate(model, tokenizer, prompt, temperature=0, max_new_tokens=steps, stop_ids=())
    return [*out.ids]


MEASURES: dict[str, Callable[[GPT2, Tokenizer, Row], list[float]]] = {
    "parameters": _parameters,
    "ids": _ids,
    "weights": _weights,
    "logits": _logits,
    "attention": _attention,
    "loss": _loss,
    "hidden": _hidden,
    "greedy": _greedy,
}
