"""Checks of the settings: each error names the setting, its value and what it may be."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Literal

from cleangpt2.errors import SamplingError

Bounds = Mapping[str, tuple[Callable[[Any], bool], str]]
"""For each field a condition on values that are not None, and what it is in words."""


def check_fields(config: Any, bounds: Bounds) -> None:
    """Refuse a field of another type than its own, or for which its bound does not hold.

    Args:
        config: A dataclass of numbers and choices; fields of other types are left alone.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        _check_type(field.name, value, field.type)
        holds, words = bounds.get(field.name, (lambda _: True, ""))
        if value is not None and not holds(value):
            raise SamplingError(f"{field.name} is {value}; it must {words}")


def _check_type(name: str, value: object, kind: Any) -> None:
    """Refuse what is no number, a fraction where a whole number stands, and an unknown choice."""
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if value not in choices:
            listed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
            raise SamplingError(f"{name} is {value!r}; it must be {listed}")
        return
    kinds = choices if typing.get_origin(kind) is types.UnionType else (kind,)
    if value is None and types.NoneType in kinds:
        return
    if bool in kinds:
        number, noun = bool, "True or False"
    elif int in kinds:
        number, noun = Integral, "a whole number"
    elif float in kinds:
        number, noun = Real, "a number"
    else:
        return
    if (isinstance(value, bool) and number is not bool) or not isinstance(value, number):
        also = ", or None" if types.NoneType in kinds else ""
        raise SamplingError(f"{name} is {value!r}, a {type(value).__name__}; give {noun}{also}")


def check_ids(name: str, ids: object) -> None:
    """Refuse what is no tuple of ids."""
    if not isinstance(ids, tuple) or not all(map(_is_id, ids)):
        raise SamplingError(f"{name} is {ids!r}; give a tuple of ids, such as (464, 3290)")


def check_bans(banned: object) -> None:
    """Refuse what is no tuple of sequences of ids, and an empty sequence, which is always there."""
    if not isinstance(banned, tuple):
        raise SamplingError(
            f"banned is {banned!r}; give a tuple of tuples of ids, such as ((464, 3290), (50256,))"
        )
    for sequence in banned:
        check_ids("a sequence in banned", sequence)
        if not sequence:
            raise SamplingError("a sequence in banned is empty; leave it out")


def _is_id(id: object) -> bool:
    return isinstance(id, Integral) and not isinstance(id, bool) and int(id) >= 0


def check_bias(logit_bias: object) -> None:
    """Refuse what is no tuple of (id, bias), and a bias that would make NaN of a logit."""
    if not isinstance(logit_bias, tuple) or not all(
        isinstance(pair, tuple) and len(pair) == 2 and _is_id(pair[0]) and isinstance(pair[1], Real)
        for pair in logit_bias
    ):
        raise SamplingError(
            f"logit_bias is {logit_bias!r}; give a tuple of (id, bias), such as ((464, -2.5),)"
        )
    for id, bias in logit_bias:
        if not bias < math.inf:  # NaN too
            raise SamplingError(f"logit_bias of id {id} is {bias}; it must be finite, or -inf")
    if len({id for id, _ in logit_bias}) < len(logit_bias):
        raise SamplingError(f"logit_bias is {logit_bias!r}: an id stands in it twice")
