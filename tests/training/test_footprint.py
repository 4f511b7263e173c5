"""What a process has held, and what there is."""

import json
import sys

import pytest
import torch

from cleangpt2.training.footprint import peak_memory, room
from tests.helpers import run_python

CPU = torch.device("cpu")


def test_the_peak_is_remembered_when_the_memory_is_given_back():
    before = peak_memory(CPU)
    size = before + (64 << 20)
    large = torch.ones(size // 4)
    del large
    assert peak_memory(CPU) >= size
    assert peak_memory(CPU) < size + before + (64 << 20)


@pytest.mark.skipif(sys.platform != "linux", reason="a peak is inherited on Linux")
def test_a_process_begins_without_the_peak_of_the_one_that_started_it():
    script = """
import json, subprocess, sys, torch
from cleangpt2.training.footprint import peak_memory
large = torch.ones(300 << 18)  # 300 MiB
small = "import torch; from cleangpt2.training.footprint import peak_memory; " \
        "print(peak_memory(torch.device('cpu')))"
child = subprocess.run([sys.executable, "-c", small], capture_output=True, text=True, check=True)
print(json.dumps([peak_memory(torch.device("cpu")), int(child.stdout)]))
"""
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr
    parent, child = json.loads(done.stdout)
    assert parent - child > 250 << 20


def test_room_is_what_is_free_and_what_this_process_holds(monkeypatch):
    from cleangpt2.device import DeviceFacts
    from cleangpt2.training import footprint

    def facts(total, free):
        return lambda _: DeviceFacts(name="", driver="", total_memory=total, free_memory=free)

    monkeypatch.setattr(footprint, "peak_memory", lambda _: 300)
    for total, free, expected in [(9000, 1000, 1300), (1200, 1000, 1200), (None, None, None)]:
        monkeypatch.setattr(footprint, "describe", facts(total, free))
        assert room(CPU) == expected
    monkeypatch.setattr(footprint, "describe", facts(9000, None))  # macOS tells no more
    assert room(CPU) == 9000
    monkeypatch.setattr(footprint, "describe", facts(9000, 1000))
    assert room(torch.device("cuda", 0)) == 1000


def test_there_is_room_here():
    assert room(CPU) > 100 << 20
