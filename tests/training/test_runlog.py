import json
from types import SimpleNamespace

import pytest

from cleangpt2.errors import OutputError
from cleangpt2.training.runlog import RunLog


def test_each_step_is_one_json_line(tmp_path):
    log = RunLog(tmp_path / "m.jsonl", steps=3)
    log.step(0, tokens=10, loss=2.5)
    log.event(0, bits_per_byte=1.5)
    log.step(1, tokens=10, loss=2.0)
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 0, "loss": 2.5},
        {"step": 0, "bits_per_byte": 1.5},
        {"step": 1, "loss": 2.0},
    ]


def test_steps_lost_with_a_crash_are_dropped(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n{"st')
    RunLog(path, steps=9, start=2).close()
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'


def test_what_follows_a_damaged_line_is_dropped(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 0}\n\x00\x00\n{"step": 1}\n')
    RunLog(path, steps=9, start=5).close()
    assert path.read_text() == '{"step": 0}\n'


def test_the_clock_has_a_file_of_its_own(tmp_path, monkeypatch):
    clock = iter([100.0, 100.5, 102.5, 104.5])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    log = RunLog(tmp_path / "m.jsonl", steps=3)
    for step in range(3):
        log.step(step, tokens=10, loss=2.5)
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 1, "seconds": 2.5, "tokens_per_s": 8.0},
        {"step": 2, "seconds": 2.0, "tokens_per_s": 5.0},
    ]


def test_the_last_step_is_always_printed(tmp_path, capsys):
    log = RunLog(tmp_path / "m.jsonl", steps=2)
    log.step(0, tokens=10, loss=2.5)
    log.step(1, tokens=10, loss=2.25)
    log.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("step      2/2  loss     2.25") and line.endswith("0:00 left")


def test_a_full_disk_costs_no_line_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 0}\n')

    def full_disk(self, *_, **__):
        self.touch()
        self.open("w").close()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OutputError, match="m.jsonl: No space left"):
        patch.setattr(type(path), "write_text", full_disk)
        RunLog(path, steps=9, start=1)
    assert path.read_text() == '{"step": 0}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_while_it_runs_is_one_of_our_errors(tmp_path):
    log = RunLog(tmp_path / "m.jsonl", steps=9)

    def full_disk(_):
        raise OSError(28, "No space left on device")

    log.rows.file.close()
    log.rows.file = SimpleNamespace(write=full_disk, close=lambda: full_disk(""))
    with pytest.raises(OutputError, match="cannot write to .*m.jsonl: No space left .*make room"):
        log.step(0, tokens=10, loss=2.5)
    log.close()
