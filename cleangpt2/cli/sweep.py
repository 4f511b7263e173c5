"""``--sweep NAME=V1,V2``: a trainer's command once for each value, and all of them in one page.

Each run is the command as it stands, with the value and a folder of its own, so it goes on where
it stopped like any other: the same sweep again repeats what is unfinished and nothing else.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from cleangpt2.cli import terminal
from cleangpt2.cli.options import UsageError, parse
from cleangpt2.errors import ConfigError, FinishedError, TrainingError
from cleangpt2.files import written_aside

FLAG = "--sweep"
TABLE, REPORT = "sweep.jsonl", "report.html"
_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}
MEASURES = {
    "answer_loss": "answers' loss", "bits_per_byte": "bits per byte", "loss": "training loss"
}  # fmt: skip
"""What runs are compared by: the first that is known."""
_MOST = 1000


@dataclass(kw_only=True, slots=True)
class Trial:
    """One run of a sweep."""

    values: dict[str, str]
    """Name of a setting -> its value, as they were typed."""
    folder: Path
    options: Any
    failed: str | None = None
    """Why it could not be trained to its end."""

    @property
    def name(self) -> str:
        """How it is called in tables, and its folder."""
        return self.folder.name


def is_swept(words: list[str]) -> bool:
    """Whether the command line asks for a sweep."""
    return any(word == FLAG or word.startswith(f"{FLAG}=") for word in _before_dashes(words))


def sweep(name: str, summary: str, module: ModuleType, words: list[str]) -> int:
    """Run the command `name` for all combinations; 1 if a run failed.

    Raises:
        UsageError: A sweep that names no values, or a setting that the command does not have.
        CleanGPT2Error: A value that the command refuses; nothing has been run then.
    """
    trials = _trials(f"cleangpt2 {name}", summary, module, words)
    if not trials:  # it was --help
        return 0
    out = trials[0].folder.parent
    for number, trial in enumerate(trials, start=1):
        heading = f"--- {number} of {len(trials)}: {trial.name} ---"
        print(terminal.paint(heading, "bold"), flush=True)
        try:
            module.run(trial.options)
        except FinishedError:
            print("finished before")
        except TrainingError as error:
            trial.failed = " ".join(str(error).split())
            terminal.warn(f"{trial.name}: {trial.failed}")
        except KeyboardInterrupt as stop:
            said = stop.args[0] if stop.args else "stopped; run it again to go on"
            stop.args = (f"{said} ({number - 1} of {len(trials)} runs of the sweep are done)",)
            raise
        if os.environ.get("RANK", "0") == "0":  # of several processes one writes
            _write(out, trials[:number])
    _show(out, trials)
    return int(any(trial.failed for trial in trials))


# ---- what is to be run -------------------------------------------------------------------------


def _trials(prog: str, summary: str, module: ModuleType, words: list[str]) -> list[Trial]:
    """Every combination, its options checked; none if the words ask for help."""
    grid, rest = _take(words)
    trials: list[Trial] = []
    for values in _combinations(grid):
        flags = [word for setting, value in values.items() for word in _flag(setting, value)]
        options = parse(prog, summary, module, _with(rest, flags))
        if options is None:
            return []
        module.cost(options)  # it refuses what the values mean together
        folder = options.out / ",".join(f"{name}={_plain(v)}" for name, v in values.items())
        trials.append(Trial(values=values, folder=folder, options=replace(options, out=folder)))
    if len({trial.folder for trial in trials}) < len(trials):
        raise UsageError(f"a value stands twice in {FLAG}: {', '.join(t.name for t in trials)}")
    return trials


def _take(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The values of each swept setting, and the other words.

    >>> _take(["a.txt", "--sweep", "lr=1e-3,2e-3", "--steps", "5"])
    ({'lr': ['1e-3', '2e-3']}, ['a.txt', '--steps', '5'])
    """
    grid: dict[str, list[str]] = {}
    left, rest = _before_dashes(words), words[len(_before_dashes(words)) :]
    kept: list[str] = []
    while left:
        word = left.pop(0)
        if word == FLAG or word.startswith(f"{FLAG}="):
            said = word[len(FLAG) + 1 :] if "=" in word else left.pop(0) if left else ""
            name, values = _named(said)
            if name in grid:
                raise UsageError(f"{name} is swept twice: give all its values in one {FLAG}")
            grid[name] = values
        else:
            kept.append(word)
    return grid, kept + rest


def _named(said: str) -> tuple[str, list[str]]:
    """``lr=1e-3,2e-3`` as a name and its values."""
    name, _, listed = said.partition("=")
    name = name.lstrip("-").replace("-", "_")
    values = [value.strip() for value in listed.split(",")]
    if not re.fullmatch(r"[a-z][\w.]*", name) or not all(values):
        raise UsageError(f"{FLAG} {said!r} names no values: write it as {FLAG} lr=1e-3,2e-3")
    if name in ("out", "config", "fresh"):
        raise UsageError(f"{name} cannot be swept: it is the same for all runs of a sweep")
    return name, values


def _combinations(grid: dict[str, list[str]]) -> Iterator[dict[str, str]]:
    combinations = list(itertools.product(*grid.values()))
    if len(combinations) > _MOST:
        raise UsageError(f"a sweep of {len(combinations):,} runs; at most {_MOST:,} are allowed")
    return (dict(zip(grid, values, strict=True)) for values in combinations)


def _flag(name: str, value: str) -> list[str]:
    """How one gives a setting on the command line; switches have two names and no value.

    >>> _flag("n_layer", "4"), _flag("recompute", "false")
    (['--n-layer', '4'], ['--no-recompute'])
    """
    dashed = name.replace("_", "-")
    if value.lower() in _TRUE | _FALSE:
        return [f"--{dashed}" if value.lower() in _TRUE else f"--no-{dashed}"]
    return [f"--{dashed}", value]


def _with(words: list[str], flags: list[str]) -> list[str]:
    """The flags at the end, where they win, but before a ``--``."""
    before = _before_dashes(words)
    return [*before, *flags, *words[len(before) :]]


def _before_dashes(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else list(words)


def _plain(value: str) -> str:
    """A value as part of a file name on any system."""
    return re.sub(r"[^\w.+-]", "_", value)


# ---- what came of it ---------------------------------------------------------------------------


def _write(out: Path, trials: list[Trial]) -> None:
    """``sweep.jsonl`` and the page that compares the runs so far."""
    from cleangpt2.report.page import write_report
    from cleangpt2.report.sweep import Point

    rows = [_result(trial) for trial in trials]
    with written_aside(out) as scratch:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (scratch / TABLE).write_text(text, encoding="utf-8", newline="\n")
    points = [
        Point(values=trial.values, **{measure: row[measure] for measure in MEASURES})
        for trial, row in zip(trials, rows, strict=True)
    ]
    logged = [trial.folder for trial, row in zip(trials, rows, strict=True) if row["steps"]]
    if logged:
        write_report(logged, out / REPORT, sweep=points)


def _result(trial: Trial) -> dict[str, Any]:
    """The figures of a run: the best it measured, and the mean of its last losses."""
    from cleangpt2.report.folder import read_run
    from cleangpt2.report.verdict import facts

    row: dict[str, Any] = {"run": trial.name, "values": trial.values, "failed": trial.failed}
    row |= {"steps": 0, **dict.fromkeys(MEASURES), "seconds": None}
    try:
        run = read_run(trial.folder)
    except ConfigError:  # it failed before its first step
        return row
    known = facts(run)
    curves = (run.curves.get(name) for name in ("validation_loss", "bits_per_byte"))
    answers, bits = (min(curve.values) if curve else None for curve in curves)
    return row | {
        "steps": run.steps,
        "answer_loss": answers,
        "bits_per_byte": bits,
        "loss": known.loss,
        "seconds": known.seconds,
    }


def _show(out: Path, trials: list[Trial]) -> None:
    """A table of the runs, the best first."""
    rows = [_result(trial) for trial in trials]
    known = [m for m in MEASURES if any(row[m] is not None for row in rows)]
    measure = known[0] if known else "loss"
    first = "answer_loss" if "answer_loss" in known else "bits_per_byte"
    rows.sort(key=lambda row: (row["failed"] is not None, row[measure] is None, row[measure] or 0))
    width = max(3, *(len(row["run"]) for row in rows))
    print(f"\n{'run':<{width}}  {MEASURES[first]:>13}  {MEASURES['loss']:>13}")
    for row in rows:
        figures = (row[first], row["loss"])
        cells = ["" if figure is None else f"{figure:.4f}" for figure in figures]
        failed = "  failed" if row["failed"] else ""
        print(f"{row['run']:<{width}}  {cells[0]:>13}  {cells[1]:>13}{failed}")
    print(f"\nfigures: {out / TABLE}\ncurves side by side: {out / REPORT}")
