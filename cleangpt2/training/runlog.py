"""What a run says while it works: one aligned line now and then, and one JSON line a step."""

import json
import sys
import time
from pathlib import Path


class RunLog:
    """Writes ``metrics.jsonl``; prints progress and the time left on standard error."""

    def __init__(self, path: Path, *, steps: int, start: int = 0) -> None:
        self.steps, self.start = steps, start
        self.began = self.printed = time.monotonic()
        kept = _lines_before(path, start)
        # Lines of steps that were lost with a crash are dropped, so that each step stands once.
        path.write_text("".join(kept), encoding="utf-8")
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (until `close`)

    def step(self, step: int, *, tokens: int, **metrics: float) -> None:
        """Record one finished step, counted from 0; print at most once every two seconds."""
        self._write({"step": step, **metrics})
        now = time.monotonic()
        if now - self.printed < 2 and step + 1 < self.steps:
            return
        self.printed = now
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
        self._write({"step": step, **values})
        shown = "  ".join(f"{name} {value}" for name, value in values.items())
        print(f"step {step + 1:>6}/{self.steps}  {shown}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush and close the file."""
        self.file.close()

    def _write(self, row: dict) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()


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
