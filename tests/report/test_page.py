import dataclasses
import html
import json
import math
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest

from cleangpt2 import lineage
from cleangpt2.errors import ConfigError, OutputError
from cleangpt2.report.page import write_report
from tests.helpers import run_python
from tests.report.reading import Page, make_run

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\ud800&amp;"


def report(*folders, out=None):
    text = write_report(folders, out).read_text(encoding="utf-8")
    return text, Page(text)


def training_rows(n):
    numbers = random.Random(0)
    return [
        {"step": step, "loss": 2 + 6 / (1 + step / 50) + numbers.gauss(0, 0.3), "lr": 1e-3 * step}
        for step in range(n)
    ]


def values_of(rows, name):
    return [(row["step"] + 1, row[name]) for row in rows if name in row]


def assert_drawn(found, wanted):
    assert len(found) == len(wanted)
    steps, values = [step for step, _ in wanted], [value for _, value in wanted]
    reach = max(values) - min(values) or 1.0
    assert [x for x, _ in found] == pytest.approx(steps, abs=1e-3 * max(steps))
    assert [y for _, y in found] == pytest.approx(values, abs=1e-3 * reach)


# --- curves -----------------------------------------------------------------------------------


def test_the_curves_are_the_metrics(tmp_path):
    rows = [*training_rows(200), {"step": 199, "bits_per_byte": 1.5}]
    _, page = report(make_run(tmp_path, rows))
    loss, lr = page.pictures["Training loss"], page.pictures["Learning rate"]
    assert_drawn(loss.paths["raw run0"], values_of(rows, "loss"))
    assert_drawn(lr.paths["line run0 dash0"], values_of(rows, "lr"))
    assert_drawn(page.pictures["Validation"].paths["line run0 dash0"], [(200, 1.5)])
    assert_drawn(page.pictures["Validation"].paths["dots run0"], [(200, 1.5)])


def test_the_mean_lies_over_the_raw_loss(tmp_path):
    rows = training_rows(200)
    _, page = report(make_run(tmp_path, rows))
    paths = page.pictures["Training loss"].paths
    assert list(paths) == ["raw run0", "mean run0 dash0"]  # what comes later is painted over

    def jumps(points):
        return sum(abs(a[1] - b[1]) for a, b in pairwise(points))

    assert jumps(paths["mean run0 dash0"]) < jumps(paths["raw run0"]) / 4


def test_the_pointer_is_told_each_step_and_value(tmp_path):
    rows = [{"step": 0, "loss": 4.125}, {"step": 1, "loss": 3.5}]
    _, page = report(make_run(tmp_path, rows))
    assert page.pictures["Training loss"].titles == ["step 1\n4.125", "step 2\n3.5"]


def test_a_number_that_others_log_is_drawn_under_its_own_name(tmp_path):
    _, page = report(make_run(tmp_path, [{"step": 0, "mfu <share>": 0.5}]))
    assert_drawn(page.pictures["mfu <share>"].paths["line run0 dash0"], [(1, 0.5)])


def test_a_spike_is_drawn_on_a_logarithmic_axis(tmp_path):
    rows = [{"step": step, "grad_norm": 1.0 + step % 3} for step in range(20)]
    rows[7]["grad_norm"] = 5e6
    _, page = report(make_run(tmp_path, rows))
    picture = page.pictures["Gradient norm"]
    assert picture.data["data-log"] == "1"
    found = [y for _, y in picture.paths["line run0 dash0"]]
    assert found == pytest.approx([row["grad_norm"] for row in rows], rel=0.01)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        ['{"step": 0, "loss": NaN}'],
        ['{"step": 0, "loss": 3.0}', '{"step": 1, "loss": Infinity}', '{"step": 2, "loss": NaN}'],
        [{"step": 0, "loss": 3.0}],
        [{"step": 0, "loss": 0.0}, {"step": 1, "loss": 0.0}],
        [{"step": step, "loss": 7.0} for step in range(100)],
        [{"step": 0, "loss": -1e300}, {"step": 1, "loss": 1e300}, {"step": 2, "loss": 5e-324}],
        [{"step": 2**53 - 1, "loss": 1.0}],
    ],
    ids=["empty", "nan", "diverged", "point", "zeros", "flat", "huge", "late"],
)
def test_no_series_breaks_the_page(tmp_path, rows):
    text, page = report(make_run(tmp_path, rows))
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<style>.*?</style>", "", text, flags=re.S))
    for picture in page.pictures.values():
        for points in picture.paths.values():
            assert points and all(math.isfinite(value) for point in points for value in point)


def test_what_is_not_finite_is_counted_beside_the_curve(tmp_path):
    rows = ['{"step": 0, "loss": 3.0}', '{"step": 1, "loss": Infinity}', '{"step": 2, "loss": NaN}']
    _, page = report(make_run(tmp_path / "run", rows))
    assert "not finite, not drawn: 2 of run" in page.text
    assert_drawn(page.pictures["Training loss"].paths["line run0 dash0"], [(1, 3.0)])
    _, page = report(make_run(tmp_path / "lost", rows[1:]))
    assert "not finite, not drawn: 2 of lost" in page.text and page.pictures == {}


@pytest.mark.parametrize("n", [5000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_the_page_of_a_long_run_stays_small(tmp_path, n):
    numbers = random.Random(0)
    names = ("loss", "lr", "grad_norm", "tokens_per_s", "mfu")
    rows = [{"step": s} | {name: numbers.random() for name in names} for s in range(n)]
    rows[3 * n // 4]["loss"] = 50.0
    text, page = report(make_run(tmp_path, rows))
    assert len(text.encode()) < 200_000
    raw = page.pictures["Training loss"].paths["raw run0"]
    assert max(raw, key=lambda point: point[1]) == pytest.approx((3 * n // 4 + 1, 50.0), rel=1e-3)


# --- settings, samples, origin ----------------------------------------------------------------


def test_settings_are_in_the_tables(tmp_path):
    _, page = report(make_run(tmp_path, [], settings={"seed": 7, "training": {"lr": 0.25}}))
    assert "seed7" in page.text and "training" in page.text and "lr0.25" in page.text


def test_samples_are_shown_the_newest_first(tmp_path):
    samples = [{"step": s, "prompt": "Once", "text": f" upon {s}"} for s in range(0, 100, 10)]
    _, page = report(make_run(tmp_path, [], samples=samples))
    assert "Once upon 90" in page.text
    seen = [int(step) for step in re.findall(r"after step (\d+)", page.text)]
    assert seen == [91, 71, 51, 31, 11, 1]
    assert page.tags.count("details") == 5


def test_text_of_strangers_stays_text(tmp_path):
    rows = [{"step": 0, "loss": 3.0, EVIL: 1.0, "note": EVIL}]
    samples = [{"step": 0, "prompt": EVIL, "text": EVIL + " http://example.com"}]
    settings = {"training": {"steps": EVIL, EVIL: EVIL}, EVIL: {EVIL: [EVIL]}}
    text, page = report(make_run(tmp_path, rows, settings=settings, samples=samples))
    assert {"script", "img"}.isdisjoint(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") >= 7
    assert "\x1b" not in text and "\ud800" not in text
    assert html.escape("&amp;") in text


def test_the_page_reaches_for_nothing_outside(tmp_path):
    text, page = report(make_run(tmp_path, training_rows(50)))
    assert not re.search(r"(https?|ftp|data|javascript):|//\w|@import|url\(", text)
    assert "script" not in page.tags
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_links_lead_to_the_files_from_where_the_page_is(tmp_path):
    run = make_run(tmp_path / "runs" / "a b%20", [{"step": 0, "loss": 3.0}])
    (run / "model").mkdir()
    (tmp_path / "pages").mkdir()
    _, page = report(run, out=tmp_path / "pages" / "one.html")
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert links[0] == "./../runs/a%20b%2520/model"
    assert len(links) == 3


def test_the_lineage_is_told_in_short(tmp_path):
    run = make_run(tmp_path / "run", [])
    model = run / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    print_ = lineage.Fingerprint(1234, "ab" * 32)
    made = lineage.Lineage(
        made_by="pretrain",
        code=lineage.Code(version="1.2.3", sha256="0" * 64, commit="c" * 40),
        parent=lineage.Parent(name="story", files={}),
        data={f"part{i}.txt": print_ for i in range(10)},
    )
    lineage.write(model, model, made)
    _, page = report(run)
    assert "Made by pretrain of cleangpt2 1.2.3, commit cccccccccccc." in page.text
    assert "Made from the model story." in page.text
    assert "part0.txt (1,234 bytes, sha256 abababababab)" in page.text
    assert "and 2 more" in page.text
    assert "Settings: " not in page.text
    made = dataclasses.replace(made, settings=print_)
    lineage.write(model, model, made)
    _, page = report(run)
    assert "Settings: config.json (1,234 bytes, sha256 abababababab)." in page.text


# --- several runs -----------------------------------------------------------------------------


def test_runs_are_compared_in_one_page(tmp_path):
    rows = [[{"step": s, "loss": start - s / 10} for s in range(10)] for start in (4, 5)]
    settings = [{"training": {"lr": lr, "seed": 1}} for lr in (0.25, 0.5)]
    folders = [
        make_run(tmp_path / name, rows[i], settings=settings[i]) for i, name in enumerate("ab")
    ]
    text, page = report(*folders, out=tmp_path / "both.html")
    loss = page.pictures["Training loss"]
    assert_drawn(loss.paths["line run0 dash0"], values_of(rows[0], "loss"))
    assert_drawn(loss.paths["line run1 dash1"], values_of(rows[1], "loss"))
    assert loss.titles[0] == "step 1\na: 4\nb: 5"
    differing = re.findall(r'<tr class="differs"><td>(\w+)', text)
    assert differing == ["lr"]


def test_speeds_stand_side_by_side(tmp_path):
    speed = [{"step": 0, "seconds": 1.0, "tokens_per_s": 1500.0, "peak_share": 0.25}]
    folders = [
        make_run(tmp_path / name, [{"step": 0, "loss": 3.0}], speed=speed if name == "b" else ())
        for name in "ab"
    ]
    text, page = report(*folders, out=tmp_path / "both.html")
    assert "<th>tokens/s</th><th>of peak</th>" in text
    cells = [re.findall("<td>([^<]*)</td>", line)[-2:] for line in text.splitlines()
             if line.startswith("<tr><td><svg")]  # fmt: skip
    assert cells == [["", ""], ["1,500", "25%"]]
    assert_drawn(page.pictures["Share of the peak"].paths["line run1 dash1"], [(1, 0.25)])


def test_no_two_of_many_runs_look_the_same(tmp_path):
    folders = [make_run(tmp_path / str(i), [{"step": 0, "loss": float(i)}]) for i in range(36)]
    _, page = report(*folders, out=tmp_path / "all.html")
    lines = [name for name in page.pictures["Training loss"].paths if name.startswith("line")]
    assert len(lines) == 36


# --- the file ---------------------------------------------------------------------------------


def test_the_page_lies_in_the_run_folder_and_of_several_here(tmp_path, monkeypatch):
    folders = [make_run(tmp_path / name, []) for name in "ab"]
    monkeypatch.chdir(tmp_path)
    assert write_report([folders[0]]) == folders[0] / "report.html"
    assert write_report(folders) == Path("report.html")
    assert (tmp_path / "report.html").is_file()


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", [{"step": 0, "loss": 3.0}])
    before = write_report([folder]).read_bytes()
    make_run(folder, [{"step": 0, "loss": 3.0}, {"step": 1, "loss": 2.0}])

    def full(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_report([folder])
    assert (folder / "report.html").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "metrics.jsonl", "report.html",
    ]  # fmt: skip


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(OutputError, match="is a folder: name a file in it"):
        write_report([make_run(tmp_path / "run", [])], tmp_path)


def test_no_folder_is_refused():
    with pytest.raises(ConfigError, match="no run to report on"):
        write_report([])


def test_the_same_folder_gives_the_same_page(tmp_path):
    folder = make_run(tmp_path, training_rows(50))
    first = write_report([folder]).read_bytes()
    assert write_report([folder]).read_bytes() == first


def test_reports_need_no_torch(tmp_path):
    make_run(tmp_path, [{"step": 0, "loss": 3.0}])
    code = (
        "import sys; from cleangpt2.report.page import write_report; "
        f"write_report([{str(tmp_path)!r}]); assert 'torch' not in sys.modules"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "config.json").read_text())
