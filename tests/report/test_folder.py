import json

import pytest

from cleangpt2.errors import ConfigError
from cleangpt2.report.folder import read_run, read_runs
from cleangpt2.report.samples import samples
from tests.report.reading import SETTINGS, make_run


def points(run, name):
    line = run.curves[name]
    return list(zip(line.steps, line.values, strict=True))


def test_every_number_is_a_curve_and_words_are_notes(tmp_path):
    rows = [
        {"step": 0, "loss": 3, "ok": True, "list": [1], "none": None},
        {"step": 0, "bits_per_byte": 2.5},
        {"step": 1, "loss": 2.5, "mfu": 0.4},
        {"step": 2, "skipped": "loss 9", "skipped_so_far": 1},
    ]
    run = read_run(make_run(tmp_path / "run", rows))
    assert list(run.curves) == ["loss", "bits_per_byte", "mfu", "skipped_so_far"]
    assert points(run, "loss") == [(1, 3.0), (2, 2.5)]
    assert points(run, "bits_per_byte") == [(1, 2.5)]
    assert run.notes == [(3, "skipped: loss 9")]
    assert (run.steps, run.damaged, run.name, run.settings) == (3, 0, "run", SETTINGS)


DAMAGED = [
    "", "   ", "\x00\x00\x00", '{"step": 1, "lo', "[]", "7", '"step"', "null", "{}",
    '{"step": "1"}', '{"step": -2}', '{"step": true}', '{"step": 1.5}', '{"step": 1e999}',
    '{"step": 99999999999999999999}', "[" * 100_000, "\udcff".encode(errors="surrogateescape"),
]  # fmt: skip


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_is_passed_over(tmp_path, line):
    folder = make_run(tmp_path, [])
    line = line if isinstance(line, bytes) else line.encode()
    content = b'{"step": 0, "loss": 3.0}\n' + line + b'\n{"step": 1, "loss": 2.0}\n'
    (folder / "metrics.jsonl").write_bytes(content)
    run = read_run(folder)
    assert points(run, "loss") == [(1, 3.0), (2, 2.0)]
    assert run.damaged == bool(line.strip())


def test_the_line_in_the_making_is_no_damage(tmp_path):
    folder = make_run(tmp_path, [{"step": 0, "loss": 3.0}])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "lo')
    run = read_run(folder)
    assert (run.steps, run.damaged) == (1, 0)


def test_numbers_beyond_all_bounds_are_not_finite(tmp_path):
    rows = ['{"step": 0, "loss": 1' + "0" * 400 + "}", '{"step": 1, "loss": NaN}']
    run = read_run(make_run(tmp_path, rows))
    assert len(run.curves["loss"]) == 0
    assert run.curves["loss"].not_finite == 2


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "[" * 100_000])
def test_settings_that_cannot_be_read_are_left_out(tmp_path, content):
    folder = make_run(tmp_path, [{"step": 0, "loss": 3.0}])
    (folder / "config.json").write_text(content)
    assert read_run(folder).settings == {}


def test_a_damaged_lineage_is_left_out(tmp_path):
    folder = make_run(tmp_path, [])
    (folder / "model").mkdir()
    (folder / "model" / "lineage.json").write_text("{")
    assert read_run(folder).made is None


def test_there_are_no_more_curves_than_a_page_can_hold(tmp_path):
    run = read_run(make_run(tmp_path, [{"step": 0} | {f"k{i}": i for i in range(1000)}]))
    assert len(run.curves) == 24


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    folders = [make_run(tmp_path / parent / "run", []) for parent in ("a", "b")]
    assert [run.name for run in read_runs(folders)] == [str(folder) for folder in folders]


def test_a_folder_named_twice_is_refused(tmp_path):
    folder = make_run(tmp_path / "run", [])
    with pytest.raises(ConfigError, match="run is named twice"):
        read_runs([folder, tmp_path / "run" / ".." / "run"])


@pytest.mark.parametrize("name", ["none", "file", "model"])
def test_what_is_no_run_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("x")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"n_layer": 2}))
    with pytest.raises(ConfigError, match="holds no run, for there is no metrics.jsonl in it"):
        read_run(tmp_path / name)


def test_what_was_measured_before_the_first_step_stands_at_step_0(tmp_path):
    rows = [
        {"step": -1, "validation_loss": 5.0},
        {"step": 0, "loss": 3.0},
        {"step": 0, "validation_loss": 4.0},
    ]
    run = read_run(make_run(tmp_path, rows))
    assert points(run, "validation_loss") == [(0, 5.0), (1, 4.0)]
    assert (run.steps, run.damaged) == (1, 0)


def test_the_bases_answer_stands_beside_the_models(tmp_path):
    folder = make_run(tmp_path, [{"step": 0, "loss": 3.0}])
    lines = ['{"step": 0, "prompt": "p", "text": "t", "base": "<b>"}', '{"step": 0, "text": "t"}',
             '{"step": 0, "text": "t", "base": 7}']  # fmt: skip
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = read_run(folder)
    assert [(s.prompt, s.text, s.base) for s in run.samples] == [("p", "t", "<b>"), ("", "t", None)]
    assert run.damaged == 1
    assert "before training" in samples(run) and "&lt;b&gt;" in samples(run)
