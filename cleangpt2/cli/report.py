"""``cleangpt2 report``: the curves, samples and settings of runs as one HTML page."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from cleangpt2.report.page import write_report

EXAMPLE = """
    cleangpt2 report runs/first
    cleangpt2 report runs/first runs/second --out comparison.html
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which runs, and where the page goes."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, finished or not; several are compared in one page."""
    out: Path | None = None
    """File to write; if not given, report.html in the run's folder, or here if there are
    several."""


def run(options: Options) -> None:
    """Write the page and say where it is."""
    print(write_report(options.runs, options.out))
