"""Where a run's model comes from, and links to its files."""

import os
from pathlib import Path
from urllib.parse import quote

from cleangpt2.lineage import Fingerprint
from cleangpt2.report.folder import CONFIG, METRICS, MODEL, SAMPLES, Run
from cleangpt2.report.markup import escape

_MOST_FILES = 8


def origin(run: Run, place: Path) -> str:
    """The lineage in a few lines, and links that work from a page in the folder `place`."""
    files = [name for name in (MODEL, CONFIG, METRICS, SAMPLES) if (run.folder / name).exists()]
    links = ", ".join(_link(run.folder / name, place, name) for name in files)
    return "\n".join([*_made(run), f"<p>Files: {links}</p>"])


def _made(run: Run) -> list[str]:
    """What ``lineage.json`` of the model says: by what it was made, and from what."""
    if (made := run.made) is None:
        return []
    by = f"<p>Made by {escape(made.made_by)}"
    if made.code:
        commit = (
            f", commit <code>{escape(made.code.commit[:12])}</code>" if made.code.commit else ""
        )
        by += f" of cleangpt2 {escape(made.code.version)}{commit}"
    lines = [f"{by}.</p>"]
    if made.parent:
        lines.append(f"<p>Made from the model {escape(made.parent.name)}.</p>")
    if made.data:
        shown = [_data(name, print) for name, print in list(made.data.items())[:_MOST_FILES]]
        more = len(made.data) - len(shown)
        lines.append(f"<p>Data: {', '.join(shown)}{f' and {more:,} more' if more else ''}.</p>")
    if made.settings:
        lines.append(f"<p>Settings: {_data(CONFIG, made.settings)}.</p>")
    return lines


def _data(name: str, print: Fingerprint) -> str:
    return f"{escape(name)} ({print.bytes:,} bytes, sha256 <code>{print.sha256[:12]}</code>)"


def _link(path: Path, place: Path, name: str) -> str:
    """A relative link; only the name if the page is on another drive of a Windows machine."""
    shown = escape(f"{name}/" if path.is_dir() else name)
    try:
        target = Path(os.path.relpath(path, place)).as_posix()
    except ValueError:
        return shown
    return f'<a href="./{escape(quote(target), 4000)}">{shown}</a>'
