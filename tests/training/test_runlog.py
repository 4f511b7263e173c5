import functools
import json
from types import SimpleNamespace

import pytest
import torch

from cleangpt2.errors import OutputError
from cleangpt2.training import peak
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


class Clock:
    """A clock that somebody else moves on."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def run(self, log, step, *, seconds, before=0.0):
        """A step that takes so long, after so much other work."""
        self.now += before
        log.begin()
        self.now += seconds
        log.step(step, tokens=10, loss=2.5)


def speeds(folder):
    rows = (folder / "speed.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row) for row in rows]


def test_the_clock_has_a_file_of_its_own(tmp_path, monkeypatch):
    clock, log = Clock(monkeypatch), RunLog(tmp_path / "m.jsonl", steps=4)
    for step, seconds in enumerate((0.5, 1.75, 0.25, 2.0)):
        clock.run(log, step, seconds=seconds)
    log.close()
    assert speeds(tmp_path) == [
        {"step": 1, "seconds": 2.25, "tokens_per_s": 8.9},
        {"step": 3, "seconds": 2.25, "tokens_per_s": 8.9},
    ]


def test_what_lies_between_steps_takes_time_and_no_speed(tmp_path, monkeypatch, capsys):
    clock, log = Clock(monkeypatch), RunLog(tmp_path / "m.jsonl", steps=100)
    clock.run(log, 0, seconds=1.0)
    clock.run(log, 1, seconds=1.0, before=18.0)  # a validation, say
    log.close()
    assert speeds(tmp_path) == [{"step": 1, "seconds": 20.0, "tokens_per_s": 10.0}]
    assert capsys.readouterr().err.splitlines()[-1].endswith("10 tok/s    16:20 left")


@pytest.fixture
def slow(monkeypatch):
    """A clock, and who asked for the peak: 1,000 operations a second, found out in 30 seconds."""
    clock, asked = Clock(monkeypatch), []

    def matmul_rate(device, dtype):
        asked.append(dtype)
        clock.now += 30
        return 1000.0

    monkeypatch.setattr(peak, "matmul_rate", matmul_rate)
    return clock, asked


SHARE = functools.partial(peak.PeakShare, 20, torch.device("cpu"), "fp32")


def test_the_share_of_the_peak_is_told_and_measuring_it_counts_as_no_time(tmp_path, slow, capsys):
    clock, asked = slow
    log = RunLog(tmp_path / "m.jsonl", steps=10, share=SHARE())
    for step in range(10):
        clock.run(log, step, seconds=1.0)
    log.close()
    assert asked == [torch.float32]  # once
    assert [row["peak_share"] for row in speeds(tmp_path)] == [0.2] * 5
    assert [row["seconds"] for row in speeds(tmp_path)] == [2.0] * 5
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step  1/10  loss 2.5"
    assert lines[1].endswith("10 tok/s   20% of peak     0:08 left")
    assert lines[2].endswith("10 tok/s   20% of peak     0:06 left")
    assert lines[-1].endswith("10 tok/s   20% of peak     0:00 left")
    assert len({len(line) for line in lines[1:]}) == 1  # aligned


def test_a_run_that_is_over_in_a_moment_waits_for_no_measurement(tmp_path, slow):
    clock, asked = slow
    log = RunLog(tmp_path / "m.jsonl", steps=19, share=SHARE())
    for step in range(19):
        clock.run(log, step, seconds=0.1)
    log.close()
    assert asked == []
    assert speeds(tmp_path) == [{"step": 18, "seconds": 1.9, "tokens_per_s": 100.0}]


def test_the_first_and_the_last_step_are_always_printed(tmp_path, capsys):
    log = RunLog(tmp_path / "m.jsonl", steps=12)
    for step in range(12):
        log.step(step, tokens=10, loss=2.5 - step, grad_norm=0.5)
    log.event(11, bits_per_byte=1.25, skipped="loss nan")
    log.close()
    first, last, event = capsys.readouterr().err.splitlines()
    assert first == "step  1/12  loss 2.5        grad norm 0.5"
    assert last.startswith("step 12/12  loss -8.5       grad norm 0.5")
    assert last.endswith(" tok/s     0:00 left")
    assert event == "step 12/12  bits per byte: 1.25, skipped: loss nan"


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
