import pytest

from tests.helpers import run_cli
from tests.report.reading import Page, make_run


def test_from_run_folders_to_a_page(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / "runs" / name, [{"step": 0, "loss": 3.0}, {"step": 1, "loss": 2.0}])
    one = run_cli("report", "runs/a", cwd=tmp_path)
    assert (one.returncode, one.stderr) == (0, "")
    assert one.stdout.strip().replace("\\", "/") == "runs/a/report.html"
    both = run_cli("report", "runs/a", "runs/b", "--out", "pages/both.html", cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    page = Page((tmp_path / "pages" / "both.html").read_text(encoding="utf-8"))
    assert "2 runs compared" in page.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("report", "nowhere"), "nowhere holds no run"),
        (("report", "run", "run"), "run is named twice"),
        (("report",), "no run to report on"),
        (("report", "run", "--out", "run"), "run is a folder"),
        (("report", "run", "--out", "run/metrics.jsonl/x.html"), "cannot write to"),
    ],
)
def test_a_mistake_costs_one_line(tmp_path, words, message):
    make_run(tmp_path / "run", [])
    failed = run_cli(*words, cwd=tmp_path)
    assert failed.returncode in (1, 2)
    (line,) = failed.stderr.strip().splitlines()
    assert line.startswith("error: ") and message in line
