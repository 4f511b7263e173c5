"""Continuations on standard output: text as it grows, or a line of JSON each."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cleangpt2.cli import terminal

if TYPE_CHECKING:
    from cleangpt2.completion import Completion, Delta
    from cleangpt2.tokenizer import Tokenizer


def print_stream(prompt: str, deltas: "Iterable[Delta]", *, rows: int) -> "list[Completion]":
    """Print one row after the other, the first that is unfinished as it grows.

    The rows of a batch grow together; what the later ones say waits until their turn.
    """
    began = time.monotonic()
    completions: list[Completion] = []
    for row, pieces in enumerate(in_turn(deltas, rows)):
        if rows > 1:
            print(terminal.paint(f"--- {row + 1} of {rows} ---", "dim"))
        print(terminal.paint(terminal.harmless(prompt), "bold"), end="", flush=True)
        for delta in pieces:
            print(terminal.harmless(delta.text), end="", flush=True)
            if delta.completion:
                completions.append(delta.completion)
        print(flush=True)
    sum_up(completions, time.monotonic() - began)
    return completions


def print_json(deltas: "Iterable[Delta]", tokenizer: "Tokenizer") -> "list[Completion]":
    """Print one line of JSON for each continuation, as soon as it is finished."""
    completions: list[Completion] = []
    for delta in deltas:
        if delta.completion:
            print(json.dumps(as_json(delta.completion, tokenizer)), flush=True)
            completions.append(delta.completion)
    return completions


def as_json(completion: "Completion", tokenizer: "Tokenizer") -> dict[str, Any]:
    """The fields of a completion, and the text of every token beside its id."""

    def text(id: int) -> str:
        return tokenizer.decode([id])

    facts: dict[str, Any] = dataclasses.asdict(completion)
    facts["tokens"] = [text(id) for id in completion.ids]
    for name in ("top_logprobs", "top_filtered_logprobs"):
        if facts[name] is not None:
            facts[name] = [
                [{"id": id, "text": text(id), "logprob": logprob} for id, logprob in tops]
                for tops in facts[name]
            ]
    return facts


def in_turn(deltas: "Iterable[Delta]", rows: int) -> "Iterator[Iterator[Delta]]":
    """Regroup interleaved pieces row by row, holding back those whose turn has not come."""
    source = iter(deltas)
    waiting: list[list[Delta]] = [[] for _ in range(rows)]

    def pieces(row: int) -> "Iterator[Delta]":
        while True:
            while waiting[row]:
                delta = waiting[row].pop(0)
                yield delta
                if delta.completion:
                    return
            delta = next(source)
            waiting[delta.row].append(delta)

    return (pieces(row) for row in range(rows))


def sum_up(completions: "list[Completion]", seconds: float) -> None:
    """Tell whoever is looking how much was written, how fast, why it ended, and its seed."""
    if not sys.stderr.isatty() or not completions:
        return
    tokens = sum(len(completion.ids) for completion in completions)
    reasons = ", ".join(sorted({completion.finish_reason for completion in completions}))
    note = f"{tokens} tokens, {tokens / max(seconds, 1e-9):.0f} a second; {reasons}"
    if (seed := completions[0].seed) is not None:
        note += f"; --seed {seed}"
    if completions[0].score is not None:
        note += f"; score {', '.join(f'{completion.score:.3f}' for completion in completions)}"
    print(terminal.paint(f"[{note}]", "dim", sys.stderr), file=sys.stderr)


def warn_of_no_room(completions: "Iterable[Completion]") -> None:
    """Say once why nothing was added where the limits leave no room for a token."""
    for completion in completions:
        if not completion.ids:
            terminal.warn(
                f"nothing was added: the prompt has {len(completion.prompt_ids)} tokens already; "
                "raise --max-length or --max-new-tokens, shorten the prompt, or let the model's "
                "context slide (--past-context slide-fast)"
            )
            return
