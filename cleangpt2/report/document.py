"""What every page is: one HTML file with its style inside, and no script.

Names, settings and texts may be anybody's. They are escaped, and a Content-Security-Policy
forbids the page to load or run anything, should one ever slip through.
"""

from pathlib import Path

from cleangpt2.errors import OutputError
from cleangpt2.files import check_writable, written_aside
from cleangpt2.report.markup import escape

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, body: str, *, styles: tuple[str, ...] = ("page",)) -> str:
    """The HTML of a page.

    Args:
        title: As text.
        body: As HTML.
        styles: Which of the style sheets of this folder it needs.
    """
    sheets = (Path(__file__).with_name(f"{name}.css") for name in styles)
    style = "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · cleangpt2</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def check_document(path: str | Path) -> Path:
    """Where a page will be; refuse, before long work, a place where it cannot be.

    Raises:
        OutputError: It is a folder, or in one that cannot be written.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it, such as {path / 'report.html'}")
    check_writable(path.parent)
    return path


def write_document(path: str | Path, html: str) -> Path:
    """Write a page whole or not at all, and return where it is.

    Raises:
        OutputError: The file cannot be written.
    """
    path = check_document(path)
    with written_aside(path.parent) as scratch:
        (scratch / path.name).write_text(html, encoding="utf-8", newline="\n")
    return path
