"""What a run says while it works: one aligned line now and then, and one JSON line a step."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from cleangpt2.errors import OutputError
from cleangpt2.training.peak import PeakShare
from cleangpt2.training.track import EventFile

PRINT_EVERY_S = 2.0


class RunLog:
    """Writes ``metrics.jsonl``; prints progress and the time left on standard error.

    What the clock says goes to a file beside it, ``speed.jsonl``, with a line for each printed one:
    so the metrics of a run that was killed and resumed are those of the run that never was.
    """

    def __init__(
        self,
        path: Path,
        *,
        steps: int,
        start: int = 0,
        share: PeakShare | None = None,
        events: EventFile | None = None,
    ) -> None:
        """Open the log of a run that begins or goes on at step `start`.

        Args:
            share: What part of the machine's peak a speed is; asked when the first line is due.
            events: Where the numbers go as well; closed with the log.

        Raises:
            OutputError: It cannot be written; so too of the other methods.
        """
        self.steps, self.start, self.share, self.events = steps, start, share, events
        self.rows = Rows(path, start)
        self.speed = Rows(path.with_name("speed.jsonl"), start)
        self.opened = self.printed = self.step_began = time.monotonic()
        self.busy_s, self.busy_steps = 0.0, 0  # since the last line
        if start:
            self._print(start - 1, "goes on from its checkpoint")

    def begin(self) -> None:
        """Call where a step begins: what lies between steps counts in no speed."""
        self.step_began = time.monotonic()

    def step(self, step: int, *, tokens: int, **metrics: float) -> None:
        """Record one finished step, counted from 0; print the first and last and some between."""
        self._record(self.rows, step, metrics)
        now = time.monotonic()
        self.busy_s += now - self.step_began
        self.busy_steps, self.step_began = self.busy_steps + 1, now
        is_due = now - self.printed >= PRINT_EVERY_S
        if is_due or step + 1 == self.steps:
            clock = self._clock(step, tokens, now, may_measure=is_due)
        elif step == self.start:  # that it works is worth a line, its speed would mislead
            clock = ""
        else:
            return
        shown = "  ".join(f"{_words(name)} {value:<9.4g}" for name, value in metrics.items())
        self._print(step, shown + clock)

    def event(self, step: int, **values: float | str) -> None:
        """Record and print something that does not happen at every step."""
        self._record(self.rows, step, values)
        self._print(step, ", ".join(f"{_words(name)}: {value}" for name, value in values.items()))

    def close(self) -> None:
        """Flush and close the files."""
        self.rows.close()
        self.speed.close()
        if self.events is not None:
            self.events.close()

    def _clock(self, step: int, tokens: int, now: float, *, may_measure: bool) -> str:
        """Record the speed since the last line; how it is shown, with the time left."""
        rate = tokens * self.busy_steps / max(self.busy_s, 1e-6)
        row = {"seconds": round(now - self.printed, 3), "tokens_per_s": round(rate, 1)}
        shown = f"{rate:9,.0f} tok/s"
        per_step = (now - self.opened) / (step + 1 - self.start)
        if (part := self._part_of_peak(rate, may_measure)) is not None:
            row["peak_share"] = round(part, 4)
            shown += f"  {part:4.0%} of peak"
        self._record(self.speed, step, row)
        self.opened += time.monotonic() - now  # the measurement of the peak is no part of the run
        self.printed, self.busy_s, self.busy_steps = time.monotonic(), 0.0, 0
        return f"{shown}  {_duration(per_step * (self.steps - step - 1)):>7} left"

    def _part_of_peak(self, rate: float, may_measure: bool) -> float | None:
        """The share of the peak; a run that is over before a line is due is not held up for it."""
        if self.share is None or not (may_measure or self.share.peak):
            return None
        return self.share(rate)

    def _record(self, rows: "Rows", step: int, values: dict[str, Any]) -> None:
        rows.add({"step": step, **values})
        if self.events is not None:
            self.events.add(step + 1, values)

    def _print(self, step: int, text: str) -> None:
        place = f"{step + 1:>{len(str(self.steps))}}/{self.steps}"
        print(f"step {place}  {text.rstrip()}", file=sys.stderr, flush=True)


class Rows:
    """A file of JSON lines, each of which belongs to a ``step``."""

    def __init__(self, path: Path, start: int) -> None:
        """Open the file, less the lines from step `start` on.

        They were lost with a crash and come again, so that each step stands once.
        """
        self.path = path
        aside = path.with_name(f".{path.name}")  # or a full disk would cost the earlier lines
        try:
            aside.write_text("".join(_lines_before(path, start)), encoding="utf-8")
            aside.replace(path)
            self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (until `close`)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise self._failed(error) from error

    def add(self, row: dict[str, Any]) -> None:
        """Write one line, so that another process sees it."""
        try:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file. What could not be written was reported when it was added."""
        with contextlib.suppress(OSError):
            self.file.close()

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write to {self.path}: {error.strerror or error}; "
            "make room and run it again to go on from the last checkpoint"
        )


def _lines_before(path: Path, step: int) -> list[str]:
    """The lines of earlier steps, up to the first that is cut off or damaged."""
    kept: list[str] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                break
    return kept


def _words(name: str) -> str:
    """The name of a metric as one reads it."""
    return name.replace("_", " ")


def _duration(seconds: float) -> str:
    """A time as clocks show it.

    >>> [_duration(s) for s in (5.9, 754, 45_296)]
    ['0:05', '12:34', '12:34:56']
    """
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
