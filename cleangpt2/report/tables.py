"""The tables of a report: the figures of several runs side by side, and their settings."""

import json
from typing import Any

from cleangpt2.report.chart import colours
from cleangpt2.report.folder import Run
from cleangpt2.report.markup import escape
from cleangpt2.report.verdict import amount, duration, facts

_MOST_ROWS, _MOST_SECTIONS = 100, 8


def comparison(runs: list[Run]) -> str:
    """One row a run: its colour, its size and what it came to."""
    heads = (
        "run",
        "parameters",
        "steps",
        "tokens",
        "training loss",
        "bits per byte",
        "time",
        "tokens/s",
        "of peak",
    )
    head = "".join(f"<th>{name}</th>" for name in heads)
    rows = "\n".join(_figures(run, number) for number, run in enumerate(runs))
    return f'<div class="wide"><table class="figures">\n<tr>{head}</tr>\n{rows}\n</table></div>'


def settings(runs: list[Run]) -> str:
    """A table for each part of ``config.json``; what differs between runs stands out."""
    sections = [_sections(run.settings) for run in runs]
    titles = list(dict.fromkeys(title for each in sections for title in each))[:_MOST_SECTIONS]
    return "\n".join(
        _section(title, [each.get(title, {}) for each in sections], runs) for title in titles
    )


def key(number: int) -> str:
    """A piece of the line that a run is drawn with."""
    return (
        '<svg class="key" viewBox="0 0 40 10" aria-hidden="true">'
        f'<path class="line {colours(number)}" d="M0 5h40"/></svg>'
    )


def _figures(run: Run, number: int) -> str:
    known = facts(run)
    cells = (
        amount(known.parameters) if known.parameters else "",
        f"{known.steps:,}" + ("" if known.is_over or not known.planned else " so far"),
        f"{known.tokens:,}" if known.tokens else "",
        "" if known.loss is None else f"{known.loss:.4f}",
        "" if known.bits_per_byte is None else f"{known.bits_per_byte:.4f}",
        "" if known.seconds is None else duration(known.seconds),
        "" if known.tokens_per_s is None else f"{known.tokens_per_s:,.0f}",
        "" if known.peak_share is None else f"{known.peak_share:.0%}",
    )
    values = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><td>{key(number)}{escape(run.name, 60)}</td>{values}</tr>"


def _sections(content: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Nested objects as sections of key and value; what stands outside of them as "run"."""
    sections: dict[str, dict[str, str]] = {}
    for name, value in content.items():
        part, inner = (name, value) if isinstance(value, dict) else ("run", {name: value})
        sections.setdefault(part, {}).update({k: _shown(v) for k, v in inner.items()})
    return sections


def _section(title: str, parts: list[dict[str, str]], runs: list[Run]) -> str:
    names = list(dict.fromkeys(name for part in parts for name in part))[:_MOST_ROWS]
    rows = []
    for name in names:
        values = [part.get(name, "") for part in parts]
        differs = ' class="differs"' if len(set(values)) > 1 else ""
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        rows.append(f"<tr{differs}><td>{escape(name, 60)}</td>{cells}</tr>")
    named = "".join(f"<th>{escape(run.name, 40)}</th>" for run in runs)
    head = f"<tr><th></th>{named}</tr>\n" if len(runs) > 1 else ""
    body = head + "\n".join(rows)
    return f'<div class="wide"><h3>{escape(title, 60)}</h3>\n<table>\n{body}\n</table></div>'


def _shown(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "nested too deeply to show"
