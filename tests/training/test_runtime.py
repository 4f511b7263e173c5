"""What a process knows of its run; in ``test_parallel.py`` there really are others."""

import threading

import pytest
import torch
import torch.distributed as dist

from cleangpt2.errors import ConfigError, DeviceError, TrainingError
from cleangpt2.training import meeting
from cleangpt2.training.runtime import Runtime, _own_device, start


@pytest.fixture
def launched(monkeypatch):
    """The environment of the second of two processes."""
    for name, value in {"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


def test_one_process_needs_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with start("cpu") as runtime:
        assert runtime == Runtime(device=torch.device("cpu")) and runtime.is_main
        assert not dist.is_initialized()
        assert runtime.sum(3) == 3 and runtime.gather("a") == ["a"]
        assert runtime.broadcast(value := object()) is value
        assert runtime.any(True) and not runtime.any(False)
        runtime.barrier()


def test_torchrun_with_one_process_is_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with start("cpu") as runtime:
        assert runtime.world_size == 1 and not dist.is_initialized()


def test_alone_an_error_is_raised_as_it_is():
    error = ConfigError("mine")
    with pytest.raises(ConfigError) as raised, Runtime().together():
        raise error
    assert raised.value is error and not error.elsewhere


def test_alone_the_main_object_is_the_object():
    things = []
    assert Runtime().on_main(lambda: things) is things


def test_alone_random_numbers_go_on():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    Runtime().reseed(5, 6)
    assert torch.equal(torch.rand(2), expected)


def test_processes_that_cannot_meet_are_told_how_to(launched, monkeypatch):
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    message = "WORLD_SIZE is 2, and RANK, MASTER_ADDR.*torchrun"
    with pytest.raises(TrainingError, match=message), start("cpu"):
        pass


@pytest.mark.parametrize(
    ("asked", "cards", "given"),
    [("auto", 0, "cpu"), ("cpu", 2, "cpu"), ("auto", 2, "cuda:1"), ("cuda:0", 2, "cuda:1")],
)
def test_each_process_of_a_machine_has_a_card_of_its_own(
    launched, monkeypatch, asked, cards, given
):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    device = _own_device(asked, 1)
    assert device == torch.device(given)
    assert chosen == ([device] if device.type == "cuda" else [])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "cuda",
            "2 processes on this machine and 1 graphics cards: give torchrun --nproc-per-node 1",
        ),
        ("mps", "several processes cannot share mps: take --device cpu"),
    ],
)
def test_too_few_devices_are_named(launched, monkeypatch, asked, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match=message):
        _own_device(asked, 1)


def test_the_living_meet_where_the_dead_have_left_their_traces(monkeypatch):
    store = dist.HashStore()
    rank = threading.local()
    monkeypatch.setattr(meeting, "rendezvous", lambda _: iter([(store, rank.of_thread, 3)]))

    def meet(number, places):
        rank.of_thread = number
        place = meeting.meet()
        if number == 0:
            place.set("address", life)
        places[number] = place.get("address")

    for life in ("first", "second", "third"):  # each finds what those before it wrote
        places = {}
        threads = [threading.Thread(target=meet, args=(n, places)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert places == dict.fromkeys(range(3), life.encode())
