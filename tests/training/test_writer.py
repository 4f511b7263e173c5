import threading

import pytest
import torch

from cleangpt2.errors import OutputError
from cleangpt2.training import checkpoint
from cleangpt2.training.writer import Writer


def held_back(monkeypatch):
    """Writing waits until the event is set."""
    let_go, write = threading.Event(), checkpoint.save

    def save(*args, **kwargs):
        assert let_go.wait(10)
        write(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "save", save)
    return let_go


def no_room(*_, **__):
    raise OutputError("no room")


def test_what_is_written_is_the_state_of_the_call_and_not_of_later(tmp_path, monkeypatch):
    let_go = held_back(monkeypatch)
    x = torch.zeros(3)
    state = {"step": 1, "list": [{"x": x}], "lr": 0.5}
    with Writer(tmp_path, keep=2, background=True) as writer:
        writer.save(1, state)
        x += 1  # training goes on
        state["lr"] = 0.1
        writer.check()
        assert checkpoint.newest(tmp_path) is None  # it does, for nothing is written yet
        let_go.set()
    saved = checkpoint.newest(tmp_path)  # leaving waited for it
    assert torch.equal(saved["list"][0]["x"], torch.zeros(3)) and saved["lr"] == 0.5


def test_a_failure_in_the_background_is_reported_by_the_next_check(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save", no_room)
    with Writer(tmp_path, keep=2, background=True) as writer:
        writer.save(1, {"step": 1})
        writer._thread.submit(int).result()  # what was queued before it is done
        with pytest.raises(OutputError, match="no room"):
            writer.check()
        writer.check()  # once


def test_a_failure_of_the_last_one_is_reported_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save", no_room)
    writer = Writer(tmp_path, keep=2, background=True)
    with pytest.raises(OutputError, match="no room"), writer:
        writer.save(1, {"step": 1})
    writer = Writer(tmp_path, keep=2, background=True)
    with pytest.raises(KeyError), writer:  # an earlier error is the one to hear of
        writer.save(1, {"step": 1})
        raise KeyError


def test_without_a_background_it_is_written_at_once(tmp_path):
    with Writer(tmp_path, keep=1, background=False) as writer:
        for step in (1, 2):
            writer.save(step, {"step": step})
            assert checkpoint.newest(tmp_path) == {"step": step}
    assert len(list(tmp_path.iterdir())) == 1
