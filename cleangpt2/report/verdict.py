"""A run in one sentence: what was trained, on how much, how well and for how long."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from cleangpt2.report.curve import recent_mean, window
from cleangpt2.report.folder import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """The figures of the sentence; ``None`` is what the folder does not tell."""

    parameters: int | None
    steps: int
    planned: int | None
    tokens: int | None
    loss: float | None
    bits_per_byte: float | None
    answer_loss: float | None
    """On held-out answers, of a run that learns from examples."""
    seconds: float | None
    tokens_per_s: float | None
    """In the middle of the run: half of it was faster."""
    peak_share: float | None
    """Of the machine's matmul rate, likewise."""
    is_over: bool
    """Whether all the steps that the settings ask for are done, or it stopped early by itself."""


def facts(run: Run) -> Facts:
    """What the folder tells about size, length and result of a run."""
    training = _part(run, "training")
    sizes = [_whole(training, key) for key in ("batch_size", "context")]
    tokens = run.steps * sizes[0] * sizes[1] if sizes[0] and sizes[1] else None
    planned = _whole(training, "steps")
    loss, bits, seconds = map(run.curves.get, ("loss", "bits_per_byte", "seconds"))
    answers = run.curves.get("validation_loss")
    return Facts(
        parameters=parameters(_part(run, "model")),
        steps=run.steps,
        planned=planned,
        tokens=tokens,
        loss=recent_mean(loss) if loss else None,
        bits_per_byte=bits.values[-1] if bits else None,
        answer_loss=answers.values[-1] if answers else None,
        seconds=math.fsum(seconds.values) if seconds else None,
        tokens_per_s=_median(run, "tokens_per_s"),
        peak_share=_median(run, "peak_share"),
        is_over=run.stopped_early or (planned is not None and run.steps >= planned),
    )


def sentence(run: Run) -> str:
    """The verdict, as text.

    It says "so far" of a run that has steps to go, for a folder does not tell whether anybody is
    still at work on it.
    """
    known = facts(run)
    if not run.steps:
        return "No step of this run is logged yet."
    steps = f"{known.steps:,} step{'' if known.steps == 1 else 's'}"
    if known.planned and known.planned > known.steps:
        steps = f"{known.steps:,} of {known.planned:,} steps"
    if run.stopped_early:
        steps += ", stopped early"
    size = f" of {amount(known.parameters)} parameters" if known.parameters else ""
    on = f" on {known.tokens:,} tokens" if known.tokens else ""
    so_far = " so far" if known.planned and not known.is_over else ""
    took = f" in {duration(known.seconds)}" if known.seconds is not None else ""
    took += _speed(known)
    return f"A model{size} was trained{on}{so_far} ({steps}){took}{_result(run, known)}."


def amount(count: int) -> str:
    """A large number as people say it.

    >>> [amount(n) for n in (950, 12_345, 124_439_808, 1_557_611_200)]
    ['950', '12.3 thousand', '124 million', '1.56 billion']
    """
    for unit, name in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)


def duration(seconds: float) -> str:
    """A time in its two largest units.

    >>> [duration(s) for s in (0.44, 59, 200, 7500, 270_000)]
    ['0.4 s', '59 s', '3 min 20 s', '2 h 5 min', '3 d 3 h']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = int(seconds)
    for unit, name, smaller, small_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if left >= unit:
            return f"{left // unit} {name} {left % unit // smaller} {small_name}"
    return f"{left} s"


def parameters(model: dict[str, Any]) -> int | None:
    """How many numbers a GPT-2 of this ``config.json`` learns, as `GPT2` itself counts them.

    >>> keys = {"n_layer": 12, "n_embd": 768, "vocab_size": 50257, "n_positions": 1024}
    >>> parameters(keys)
    124439808
    """
    sizes = [_whole(model, key) for key in ("n_layer", "n_embd", "vocab_size", "n_positions")]
    if None in sizes:
        return None
    L, C, V, P = (size or 0 for size in sizes)
    inner = _whole(model, "n_inner") or 4 * C
    attention = 4 * C * C + 4 * C
    mlp = 2 * C * inner + inner + C
    head = 0 if model.get("tie_word_embeddings", True) else V * C
    return V * C + P * C + L * (attention + mlp + 4 * C) + 2 * C + head


def _result(run: Run, known: Facts) -> str:
    found = []
    if known.loss is not None:
        points = len(run.curves["loss"])
        found.append(
            f"training loss {known.loss:.4g} (mean of the last {min(points, window(points))})"
        )
    if known.answer_loss is not None:
        found.append(f"{known.answer_loss:.4g} on held-out answers")
    if known.bits_per_byte is not None:
        found.append(f"{known.bits_per_byte:.4g} bits per byte on held-out text")
    return ": " + ", ".join(found) if found else ""


def _speed(known: Facts) -> str:
    if known.tokens_per_s is None:
        return ""
    share = "" if known.peak_share is None else f", {known.peak_share:.0%} of the machine's peak"
    return f" ({known.tokens_per_s:,.0f} tokens a second{share})"


def _median(run: Run, name: str) -> float | None:
    line = run.curves.get(name)
    return statistics.median(line.values) if line else None


def _part(run: Run, name: str) -> dict[str, Any]:
    part = run.settings.get(name)
    return part if isinstance(part, dict) else {}


def _whole(values: dict[str, Any], key: str) -> int | None:
    """A positive integer of the settings, of a size that something real could have."""
    value = values.get(key)
    return value if type(value) is int and 0 < value < 1 << 53 else None
