"""What a run folder tells: settings, curves, notes, samples and lineage.

The folder may be of a run that is still going on, that was stopped or killed, or anybody's: what
is missing or damaged is passed over, counted, and never trusted.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleangpt2 import lineage
from cleangpt2.errors import CheckpointError, ConfigError
from cleangpt2.files import read_text
from cleangpt2.report.curve import Curve

CONFIG, METRICS, SPEED = "config.json", "metrics.jsonl", "speed.jsonl"
SAMPLES, MODEL = "samples.jsonl", "model"

_LONGEST_LINE, _LONGEST_TEXT = 1 << 20, 4000  # characters
_MOST_CURVES, _MOST_NOTES, _MOST_SAMPLES = 24, 40, 2000
_LARGEST_STEP = 1 << 53  # a float still counts up to there


@dataclass(frozen=True, slots=True)
class Sample:
    """A text that the model wrote after some steps."""

    step: int
    prompt: str
    text: str
    base: str | None = None
    """What the model that the run began with wrote, from the same random numbers."""


@dataclass(kw_only=True, slots=True)
class Run:
    """Everything a report shows of one run; `name` tells it from the other runs of the page."""

    folder: Path
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    """``config.json`` as it stands there."""
    curves: dict[str, Curve] = field(default_factory=dict)
    """Every number of ``metrics.jsonl`` and, which not every run has, of ``speed.jsonl``."""
    notes: list[tuple[int, str]] = field(default_factory=list)
    """Lines that say something in words, each with its step."""
    samples: list[Sample] = field(default_factory=list)
    steps: int = 0
    """Steps done, as far as they are logged."""
    stopped_early: bool = False
    """Whether the run ended by itself before its last step."""
    damaged: int = 0
    """Lines of the logs that could not be read."""
    made: lineage.Lineage | None = None
    """The lineage of the model folder."""


def read_runs(folders: list[Path]) -> list[Run]:
    """The runs in these folders, under names that tell them apart.

    Raises:
        ConfigError: A folder holds no run, or stands twice in the list.
    """
    names = [folder.resolve().name or str(folder) for folder in folders]
    if twice := [str(f) for i, f in enumerate(folders) if f.resolve() in _resolved(folders[:i])]:
        raise ConfigError(f"{twice[0]} is named twice: name each run folder once")
    are_unique = len(set(names)) == len(names)
    return [
        read_run(folder, name if are_unique else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def read_run(folder: Path, name: str = "") -> Run:
    """What one run folder tells so far.

    Raises:
        ConfigError: There is no run in the folder, or its log cannot be read.
    """
    if not (folder / METRICS).is_file():
        raise ConfigError(
            f"{folder} holds no run, for there is no {METRICS} in it: "
            "name a folder that `cleangpt2 pretrain --out` has written"
        )
    run = Run(folder=folder, name=name or folder.resolve().name)
    run.settings = _settings(folder / CONFIG)
    try:
        for row in _rows(run, METRICS):
            _take(run, row)
        for row in _rows(run, SPEED):
            _take_numbers(run, row)
        for row in _rows(run, SAMPLES):
            _take_sample(run, row)
    except OSError as error:
        raise ConfigError(
            f"{error.filename} cannot be read ({error.strerror}): name a folder that you may read"
        ) from None
    try:
        run.made = lineage.read(folder / MODEL)
    except CheckpointError:
        run.made = None
    return run


def _resolved(folders: list[Path]) -> list[Path]:
    return [folder.resolve() for folder in folders]


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _take(run: Run, row: dict[str, Any]) -> None:
    """Numbers become curves, words a note."""
    run.steps = row["step"] + 1  # rows count from 0; people, and the log on screen, from 1
    run.stopped_early = "stopped_early" in row
    _take_numbers(run, row)
    if words := [f"{key}: {value}" for key, value in row.items() if isinstance(value, str)]:
        run.notes.append((run.steps, ", ".join(words)))
        del run.notes[:-_MOST_NOTES]


def _take_numbers(run: Run, row: dict[str, Any]) -> None:
    for key, value in row.items():
        if key == "step" or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if key not in run.curves and len(run.curves) < _MOST_CURVES:
            run.curves[key] = Curve()
        if key in run.curves:
            run.curves[key].add(row["step"] + 1, _number(value))


def _take_sample(run: Run, row: dict[str, Any]) -> None:
    given = [row.get("prompt", ""), row.get("text"), row.get("base", "")]
    texts = [text[:_LONGEST_TEXT] for text in given if isinstance(text, str)]
    if len(texts) == len(given):
        base = texts.pop() if "base" in row else None
        run.samples.append(Sample(row["step"] + 1, texts[0], texts[1], base))
        del run.samples[:-_MOST_SAMPLES]
    else:
        run.damaged += 1


def _rows(run: Run, name: str) -> Iterator[dict[str, Any]]:
    """The objects of a log, each of them with a step; what is none is counted."""
    if not (run.folder / name).is_file():
        return
    with (run.folder / name).open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(_LONGEST_LINE):
            if (row := _parse(line)) is not None:
                yield row
            elif line.strip() and line.endswith("\n"):  # else it may be in the making
                run.damaged += 1


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        # -1 is what was measured before the first step.
        return row if type(row["step"]) is int and -1 <= row["step"] < _LARGEST_STEP else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON knows integers of any size
        return float("inf")
