"""``cleangpt2 info``: what a model is made of, alone or beside another one."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tyro

from cleangpt2.cli.terminal import paint
from cleangpt2.model.summary import Summary, show_bytes, summarise, weight_differences

EXAMPLE = """
    cleangpt2 info story
    cleangpt2 info gpt2 --compare gpt2-xl
"""

_BAR = 24  # columns that stand for all parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to describe."""

    model: tyro.conf.Positional[str] = "story"
    """A bundled model, a published size, a hub id, a folder or a checkpoint."""
    compare: str | None = None
    """A second model, to stand beside the first."""
    json: bool = False
    """Print JSON instead of a table."""


def run(options: Options) -> None:
    """Print the figures."""
    summaries = [summarise(options.model)]
    differences = None
    if options.compare is not None:
        summaries.append(summarise(options.compare))
        differences = weight_differences(options.model, options.compare)
    if options.json:
        found = [summary.to_dict() for summary in summaries]
        both = {"models": found, "largest_weight_difference": differences}
        print(json.dumps(found[0] if options.compare is None else both, indent=2))
    elif options.compare is None:
        print("\n".join(describe(summaries[0])))
    else:
        print("\n".join(_compare(summaries[0], summaries[1], differences)))


def describe(summary: Summary) -> Iterator[str]:
    """The page of one model."""
    yield f"{paint(summary.name, 'bold')}  {_count(summary.total)} parameters"
    yield paint(f"figures from {summary.origin}", "dim")
    yield ""
    yield from _table([["", ""], *_shape(summary)], left=1)
    yield ""
    shapes = summary.shapes()
    rows = [["parameters", "shapes", "number", "share", ""]]
    for part, number in summary.parameters.items():
        share = number / summary.total
        bar = "█" * round(share * _BAR)
        rows.append([part, shapes[part], f"{number:,}", f"{share:.1%}", bar])
    rows.append(["total", "", f"{summary.total:,}", "", ""])
    yield from _table(rows, left=2)
    yield ""
    types = ["float32", "bfloat16", "int8"]
    rows = [["memory", "float32", "16 bits", "int8"]]
    for what, sizes in summary.memory().items():
        rows.append([what, *(show_bytes(sizes[t]) if t in sizes else "" for t in types)])
    yield from _table(rows, left=1)
    if stored := summary.stored:
        files = stored.files[0] if len(stored.files) == 1 else f"{len(stored.files)} files"
        yield ""
        yield (
            f"on disk  {files}: {stored.tensors} tensors of {', '.join(stored.dtypes)}, "
            f"{show_bytes(stored.bytes)}"
        )


def _compare(a: Summary, b: Summary, differences: dict[str, float | None] | None) -> Iterator[str]:
    """Two models side by side, with what sets them apart."""
    for summary in (a, b):
        yield paint(f"{summary.name}: figures from {summary.origin}", "dim")
    yield ""
    rows = [["", a.name, b.name, "difference"]]
    for (what, one), (_, other) in zip(_shape(a), _shape(b), strict=True):
        rows.append([what, one, other, "" if one == other else "differs"])
    yield from _table(rows, left=1)
    yield ""
    head = ["parameters", a.name, b.name, "ratio"]
    rows = [head if differences is None else [*head, "largest weight difference"]]
    for part in [*a.parameters, "total"]:
        one = a.parameters.get(part, a.total)
        other = b.parameters.get(part, b.total)
        row = [part, f"{one:,}", f"{other:,}", _ratio(one, other)]
        if differences is not None:
            row.append(_gap(differences, part))
        rows.append(row)
    yield from _table(rows, left=1)
    yield ""
    rows = [["memory, float32", a.name, b.name, "ratio"]]
    theirs = b.memory()
    for what, sizes in a.memory().items():
        one, other = sizes["float32"], theirs[what]["float32"]
        rows.append([what, show_bytes(one), show_bytes(other), _ratio(one, other)])
    yield from _table(rows, left=1)


def _shape(summary: Summary) -> list[list[str]]:
    """What defines the architecture, as rows of a name and a value."""
    c = summary.config
    return [
        ["layers", f"{c.n_layer:,}"],
        ["width", f"{c.n_embd:,}"],
        ["heads", f"{c.n_head} of {c.head_width}"],
        ["MLP width", f"{c.mlp_width:,}"],
        ["activation", c.activation_function],
        ["context", f"{c.n_positions:,}"],
        ["vocabulary", f"{c.vocab_size:,}"],
        ["output layer", "tied" if c.tie_word_embeddings else "its own"],
    ]


def _table(rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Rows in columns, the first `left` of them flush left; the first row is a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if at < left or set(cell) <= {"█"} else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        if number > 0 or line:
            yield paint(line, "bold") if number == 0 else line


def _gap(differences: dict[str, float | None], part: str) -> str:
    if part == "total":
        known = [gap for gap in differences.values() if gap is not None]
        return f"{max(known):.3g}" if known else ""
    gap = differences.get(part, 0.0)
    return "other shape" if gap is None else f"{gap:.3g}"


def _ratio(one: int, other: int) -> str:
    return "" if one == other or not one or not other else f"x {other / one:.2f}"


def _count(number: int) -> str:
    """A large number as people say it.

    >>> _count(124_439_808), _count(1_557_611_200), _count(530_000)
    ('124.4 M', '1.56 B', '0.5 M')
    """
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"
