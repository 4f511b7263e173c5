import json

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


def test_the_last_step_is_always_printed(tmp_path, capsys):
    log = RunLog(tmp_path / "m.jsonl", steps=2)
    log.step(0, tokens=10, loss=2.5)
    log.step(1, tokens=10, loss=2.25)
    log.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("step      2/2  loss     2.25") and line.endswith("0:00 left")
