"""Options from a TOML file: ``--config run.toml``, under what the flags say.

Defaults < file < flags. The file may name exactly the fields of the command's ``Options``, a
table for each nested dataclass, or its fields without a table where its flags have no prefix
either. An unknown name is an error, because a misspelt setting that is silently ignored costs
a training run.
"""

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from cleangpt2.errors import ConfigError, did_you_mean

T = TypeVar("T")

_NOUNS = {int: "whole number", float: "number", str: "text", Path: "path"}


def read_options(options: type[T], path: Path) -> T:
    """The defaults of ``options`` with what the file says laid over them.

    The result is a draft that tyro completes with the flags: its ``__post_init__`` has not
    run, since only the finished values have to agree, and required fields that the file
    leaves out are ``tyro.MISSING``.

    Raises:
        ConfigError: No such file, not TOML, an unknown name, or a value of another type.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    return _draft(options, table, f"{path}: ")


def _draft(cls: type[T], table: dict[str, Any], where: str, base: Any = None) -> T:
    """An instance of the dataclass ``cls`` whose checks are left to the final one.

    Args:
        base: An instance that gives the defaults, those of the class if ``None``.
    """
    kinds = typing.get_type_hints(cls, include_extras=True)
    fields = [field for field in dataclasses.fields(cls) if field.init]  # ty: ignore[invalid-argument-type]
    spread = {f.name: _names(kinds[f.name].__origin__) for f in fields if _is_spread(kinds[f.name])}
    known = [name for field in fields for name in spread.get(field.name, [field.name])]
    for name in table:
        if name not in known:
            raise ConfigError(
                f"{where}no option {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}."
            )
    draft = object.__new__(cls)
    for field in fields:
        name, kind = field.name, kinds[field.name]
        value = _default(field) if base is None else getattr(base, name)
        if name in spread:
            own = {key: table[key] for key in spread[name] if key in table}
            value = _draft(kind.__origin__, own, where, value)
        elif name in table:
            value = _convert(table[name], kind, f"{where}{name}", value)
        object.__setattr__(draft, name, value)
    return draft


def _names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.init]


def _is_spread(kind: Any) -> bool:
    """Whether tyro shows a nested dataclass without a prefix: ``tyro.conf.arg(name="")``."""
    return any(getattr(note, "name", None) == "" for note in getattr(kind, "__metadata__", ()))


def _default(field: dataclasses.Field) -> Any:
    """What a field is when nobody says; ``tyro.MISSING`` makes tyro ask for a flag."""
    import tyro

    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default


def _convert(value: Any, kind: Any, where: str, base: Any = None) -> Any:
    """A TOML value as the type of its field; TOML has no paths, tuples or None."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:  # tyro.conf.Positional[...] and its like
        return _convert(value, inner[0], where, base)
    if origin in (typing.Union, types.UnionType):
        for choice in inner:
            try:
                return _convert(value, choice, where)
            except ConfigError:
                continue
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        return _draft(kind, value, f"{where}: ", base if isinstance(base, kind) else None)
    elif origin in (list, tuple) and isinstance(value, list):
        fixed = origin is tuple and inner[-1:] != (...,)
        if not fixed or len(value) == len(inner):
            kinds = inner if fixed else [inner[0]] * len(value)
            return origin(
                _convert(item, k, f"{where}[{i}]")
                for i, (item, k) in enumerate(zip(value, kinds, strict=True))
            )
    elif origin is typing.Literal and value in inner:
        return value
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif isinstance(kind, type) and type(value) is kind:
        return value
    raise ConfigError(f"{where} = {value!r} should be {_in_words(kind)}")


def _in_words(kind: Any) -> str:
    """What a TOML value of this type is.

    >>> _in_words(tuple[Path, ...]), _in_words(tuple[float, float]), _in_words(int | None)
    ('a list of paths', 'a list of 2 numbers', 'a whole number')
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(choice) for choice in inner if choice is not types.NoneType)
    if origin in (list, tuple):
        count = f"{len(inner)} " if origin is tuple and inner[-1:] != (...,) else ""
        return f"a list of {count}{_NOUNS.get(inner[0], 'table')}s"
    return "true or false" if kind is bool else f"a {_NOUNS.get(kind, 'table')}"
