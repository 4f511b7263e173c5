import dataclasses
import json

import pytest

from cleangpt2.errors import ConfigError, OutputError
from cleangpt2.training import track
from cleangpt2.training.pretrain import pretrain
from tests.helpers import require
from tests.training.runs import CONFIG, MODEL, TOKENS, Killed, die_at

TRACKED = dataclasses.replace(CONFIG, tensorboard=True)


def curves(folder):
    """What TensorBoard itself reads: tag -> (step, value) of each point."""
    module = require("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def logged(folder, name, file="metrics.jsonl"):
    rows = map(json.loads, (folder / file).read_text(encoding="utf-8").splitlines())
    return [(row["step"] + 1, pytest.approx(row[name])) for row in rows if name in row]


def test_tensorboard_shows_what_the_log_holds_each_step_once(tmp_path, monkeypatch):
    require("tensorboard")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 13)
        pretrain(MODEL, TRACKED, TOKENS, tmp_path, validate=lambda _: 2.5)
    assert len(curves(tmp_path)["loss"]) == 13
    pretrain(MODEL, TRACKED, TOKENS, tmp_path, validate=lambda _: 2.5)  # from step 10 on
    found = curves(tmp_path)
    for name in ("loss", "lr", "grad_norm", "bits_per_byte"):
        assert found[name] == logged(tmp_path, name)
    assert [step for step, _ in found["loss"]] == list(range(1, 21))
    assert found["tokens_per_s"] == logged(tmp_path, "tokens_per_s", "speed.jsonl")
    pretrain(MODEL, TRACKED, TOKENS, tmp_path, fresh=True)
    assert "bits_per_byte" not in curves(tmp_path)


def test_words_are_no_points_of_a_curve(tmp_path):
    require("tensorboard")
    events = track.EventFile(tmp_path / "tensorboard", 0)
    events.add(1, {"skipped": "loss nan", "skipped_so_far": 3})
    events.close()
    assert curves(tmp_path) == {"skipped_so_far": [(1, 3.0)]}


def test_a_missing_package_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(track, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'cleangpt2\[track\]'"):
        pretrain(MODEL, TRACKED, TOKENS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_costs_one_line(tmp_path, monkeypatch):
    require("tensorboard")
    events = track.EventFile(tmp_path / "tensorboard", 0)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(events.writer, "add_scalar", full_disk)
        with pytest.raises(OutputError, match="tensorboard: No space left .*make room"):
            events.add(1, {"loss": 2.0})
    events.close()
