"""What is said of the devices, whatever their check finds."""

import pytest
import torch

from cleangpt2.device import available
from cleangpt2.doctor import devices as room
from cleangpt2.doctor.devices import devices
from cleangpt2.errors import DeviceError
from cleangpt2.model.selfcheck import Verdict

CPU = torch.device("cpu")


@pytest.fixture
def answers(monkeypatch):
    """What the self-check says of each data type, and the calls it got."""
    special, calls = {}, []

    def check(device, dtype, *, fresh):
        calls.append((device, dtype, fresh))
        if isinstance(said := special.get(dtype), Exception):
            raise said
        return said or Verdict(device=device, dtype=dtype, path="causal", seconds=0.25)

    monkeypatch.setattr(room, "check_device", check)
    special["calls"] = calls
    return special


def found(dtype=torch.float32, fresh=False):
    return {finding.subject: finding for finding in devices(CPU, dtype, fresh=fresh)}


def test_every_device_is_listed_and_the_choice_explained(answers):
    findings = found()
    assert set(available()) <= set(findings)
    assert findings["auto"].detail.startswith(f"takes {available()[0]}")
    assert {finding.verdict for finding in findings.values()} == {"ok"}
    assert findings["cpu in bfloat16"].detail == (
        "computes rightly, attention path 'causal' (0.2 s, just now)"
    )


def test_the_three_data_types_are_checked_the_chosen_one_first(answers):
    found(torch.float16, fresh=True)
    types = [torch.float16, torch.float32, torch.bfloat16]
    assert answers["calls"] == [(CPU, dtype, True) for dtype in types]


def test_a_path_that_was_refused_is_named(answers):
    wrong = ("'causal': attention of 1024 tokens, off by 0.5 at position 3",)
    answers[torch.bfloat16] = Verdict(
        device=CPU, dtype=torch.bfloat16, path="mask", wrong=wrong, seconds=1, remembered=True
    )
    finding = found()["cpu in bfloat16"]
    assert finding.verdict == "warning"
    assert "'mask'" in finding.detail and wrong[0] in finding.detail
    assert "remembered; --fresh" in finding.detail


@pytest.mark.parametrize(("chosen", "verdict"), [("float16", "failed"), ("float32", "warning")])
def test_a_device_that_computes_wrongly_fails_where_it_was_chosen(answers, chosen, verdict):
    answers[torch.float16] = DeviceError("cpu in float16 computes wrongly on every path")
    findings = found(getattr(torch, chosen))
    finding = findings["cpu in float16"]
    assert finding.verdict == verdict
    assert "computes wrongly" in finding.detail and "--device cpu" in finding.advice
    assert findings["cpu in float32"].verdict == "ok"


def test_a_check_that_breaks_is_a_finding(answers):
    answers[torch.float16] = RuntimeError("no kernel image\nis available")
    assert found()["cpu in float16"].detail == "RuntimeError: no kernel image is available"
