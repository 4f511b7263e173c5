"""``cleangpt2 generate``: continue a text, streaming."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from cleangpt2.cli import terminal
from cleangpt2.cli.text_input import given_or_piped, warn_of_last_space
from cleangpt2.sampler.config import SamplingConfig

if TYPE_CHECKING:
    from cleangpt2.completion import Completion, Delta

EXAMPLE = """
    cleangpt2 generate "Once upon a time"
    cleangpt2 generate "If computers were one day" --model gpt2 --num-samples 5 --max-length 30
    echo "The dog" | cleangpt2 generate --temperature 0 --json
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to continue, with which model, and how."""

    prompt: tyro.conf.Positional[str | None] = None
    """Text to continue; left out, it is read from standard input, and empty at a terminal."""
    model: str = "story"
    """Bundled model (story, tiny), published size (gpt2, gpt2-xl, ...), hub id, or folder."""
    num_samples: int = 1
    """How many continuations."""
    stop: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A text that ends a continuation and is not printed; may be given several times."""
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = SamplingConfig(
        temperature=0.8, top_k=50
    )
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """auto (float32), float32, bfloat16, float16."""
    json: bool = False
    """Print one JSON object for each continuation instead of text."""


def run(options: Options) -> None:
    """Load the model and print what it writes."""
    prompt = given_or_piped(options.prompt) or ""
    warn_of_last_space(prompt)
    from cleangpt2.completion import stream_all
    from cleangpt2.model.pretrained import load

    model, tokenizer = load(options.model, device=options.device, dtype=options.dtype)
    deltas = stream_all(
        model,
        tokenizer,
        prompt,
        num_samples=options.num_samples,
        stop=options.stop,
        config=options.sampling,
    )
    if options.json:
        completions = print_json(deltas)
    else:
        completions = print_stream(prompt, deltas, rows=options.num_samples)
    warn_of_no_room(completions)


def print_json(deltas: "Iterable[Delta]") -> "list[Completion]":
    """Print one line of JSON for each continuation, as soon as it is finished."""
    completions: list[Completion] = []
    for delta in deltas:
        if delta.completion:
            print(json.dumps(dataclasses.asdict(delta.completion)), flush=True)
            completions.append(delta.completion)
    return completions


def warn_of_no_room(completions: "Iterable[Completion]") -> None:
    """Say once why nothing was added where the limits leave no room for a token."""
    for completion in completions:
        if not completion.ids:
            terminal.warn(
                f"nothing was added: the prompt has {len(completion.prompt_ids)} tokens already; "
                "raise --max-length or --max-new-tokens, or shorten the prompt"
            )
            return


def print_stream(prompt: str, deltas: "Iterable[Delta]", *, rows: int) -> "list[Completion]":
    """Print one row after the other, the first that is unfinished as it grows.

    The rows of a batch grow together; what the later ones say waits until their turn.
    """
    began = time.monotonic()
    completions: list[Completion] = []
    for row, pieces in enumerate(in_turn(deltas, rows)):
        if rows > 1:
            print(terminal.paint(f"--- {row + 1} of {rows} ---", "dim"))
        print(terminal.paint(prompt, "bold"), end="", flush=True)
        for delta in pieces:
            print(delta.text, end="", flush=True)
            if delta.completion:
                completions.append(delta.completion)
        print(flush=True)
    if sys.stderr.isatty():
        tokens = sum(len(completion.ids) for completion in completions)
        rate = tokens / max(time.monotonic() - began, 1e-9)
        reasons = ", ".join(sorted({completion.finish_reason for completion in completions}))
        note = f"[{tokens} tokens, {rate:.0f} a second; {reasons}; --seed {completions[0].seed}]"
        print(terminal.paint(note, "dim", sys.stderr), file=sys.stderr)
    return completions


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
