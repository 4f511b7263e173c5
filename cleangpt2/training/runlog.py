"""What a run says while it works: one aligned line now and then, and one JSON line a step."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from cleangpt2.errors import OutputError


class RunLog:
    """Writes ``metrics.jsonl``; prints progress and the time left on standard error.

    What the clock says goes to a file beside it, ``speed.jsonl``, with a line for each printed one:
    so the metrics of a run that was killed and resumed are those of the run that never was.
    """

    def __init__(self, path: Path, *, steps: int, start: int = 0) -> None:
        """Open the log of a run that begins or goes on at step `start`.

        Raises:
            OutputError: It cannot be written; so too of the other methods.
        """
        self.steps, self.start = steps, start
        self.began = self.printed = time.monotonic()
        self.rows = Rows(path, start)
        self.speed, self.timed = Rows(path.with_name("speed.jsonl"), start), start

    def step(self, step: int, *, tokens: int, **metrics: float) -> None:
        """Record one finished step, counted from 0; print at most once every two seconds."""
        self.rows.add({"step": step, **metrics})
        now = time.monotonic()
        if now - self.printed < 2 and step + 1 < self.steps:
            return
        seconds, steps = max(now - self.printed, 1e-6), step + 1 - self.timed
        rate = round(tokens * steps / seconds, 1)
        self.speed.add({"step": step, "seconds": round(seconds, 3), "tokens_per_s": rate})
        self.printed, self.timed = now, step + 1
        done = step + 1 - self.start
        per_step = (now - self.began) / done
        left = int(per_step * (self.steps - step - 1))
        shown = "  ".join(f"{name} {value:8.4g}" for name, value in metrics.items())
        print(
            f"step {step + 1:>6}/{self.steps}  {shown}  {tokens / per_step:7.0f} tok/s  "
            f"{left // 60:3d}:{left % 60:02d} left",
            file=sys.stderr,
            flush=True,
        )

    def event(self, step: int, **values: float | str) -> None:
        """Record and print something that does not happen at every step."""
        self.rows.add({"step": step, **values})
        shown = "  ".join(f"{name} {value}" for name, value in values.items())
        print(f"step {step + 1:>6}/{self.steps}  {shown}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush and close the files."""
        self.rows.close()
        self.speed.close()


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
