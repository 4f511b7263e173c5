"""What is said of the machine."""

import tomllib

import huggingface_hub.constants  # noqa: F401 - reads the environment as it is before a test
import pytest

from cleangpt2.doctor import environment as room
from cleangpt2.doctor.environment import environment, requirements
from tests.helpers import ROOT


def found():
    return {finding.subject: finding for finding in environment()}


def test_this_machine_is_fine(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert {finding.verdict for finding in environment()} == {"ok"}


def test_the_requirements_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = requirements()
    # An installed package lists them in another order, and some with a hyphen.
    named = {f"{name.replace('-', '_')}>={floor}" for name, floor in asked[""].items()}
    assert named == set(project["dependencies"])
    assert asked["fast"] == {"gigatoken": "0.10"}
    assert set(room.EXTRAS) <= set(project["optional-dependencies"])


def test_the_requirements_of_an_installed_package_are_read_alike(monkeypatch):
    from_checkout = requirements()
    lines = [f"{name}>={floor}" for name, floor in from_checkout[""].items()]
    lines += ['gigatoken<1,>=0.10; extra == "fast"', "cleangpt2[fast]; extra == 'all'"]
    monkeypatch.setattr(room.importlib.metadata, "requires", lambda _: lines)
    assert requirements() == {"": from_checkout[""], "fast": {"gigatoken": "0.10"}}


@pytest.mark.parametrize(
    ("version", "what"), [(None, "is missing"), ("2.9.1+cpu", "2.9.1+cpu is older than 2.11")]
)
def test_a_package_that_is_missing_or_old_fails_with_the_way_out(monkeypatch, version, what):
    installed = room.installed
    monkeypatch.setattr(
        room, "installed", lambda name: version if name == "torch" else installed(name)
    )
    finding = found()["torch"]
    assert (finding.verdict, finding.detail) == ("failed", what)
    assert 'pip install -U "torch>=2.11"' in finding.advice


def test_a_missing_extra_is_no_fault_and_an_old_one_is_told(monkeypatch):
    monkeypatch.setattr(room, "installed", lambda name: None if name == "gigatoken" else "99")
    finding = found()["extras not installed"]
    assert finding.verdict == "ok"
    assert "fast (encodes" in finding.detail
    monkeypatch.setattr(room, "installed", lambda name: "0.9" if name == "gigatoken" else "99")
    assert found()["gigatoken"].verdict == "warning"


def test_switches_that_stop_downloads_are_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    finding = found()["network"]
    assert finding.verdict == "warning"
    assert "HF_HUB_OFFLINE is set" in finding.detail and "unset" in finding.advice
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    finding = found()["network"]
    assert (finding.verdict, finding.detail) == ("ok", "HF_ENDPOINT is https://mirror.example")


def test_a_password_in_an_address_is_not_shown(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:secret@proxy.example:8080")
    assert found()["network"].detail == "HTTPS_PROXY is http://proxy.example:8080"


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "deep"))
    usage = type("Usage", (), {"free": 10**9})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    finding = found()["cache"]
    assert finding.verdict == "warning"
    assert finding.detail == f"{tmp_path / 'cache' / 'deep'}, 1.00 GB free"
    assert "HF_HOME" in finding.advice


def test_more_threads_than_cores_are_told(monkeypatch):
    monkeypatch.setattr(room.os, "cpu_count", lambda: 0)  # the system does not say: 1
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert found()["threads"].verdict == "warning"


def test_one_broken_check_does_not_end_the_visit(monkeypatch):
    def broken(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(room.shutil, "disk_usage", broken)
    findings = found()
    assert findings["cache"].detail == "OSError: the disk is gone"
    assert findings["system"].verdict == "ok"
