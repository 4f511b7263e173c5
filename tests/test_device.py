"""Choosing a device and a data type, on machines this one is not."""

import pytest
import torch

from cleangpt2.device import available, choose, choose_dtype
from cleangpt2.errors import DeviceError


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine with so many GPUs, with or without Metal."""

    def pretend(gpus: int = 0, metal: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: gpus - 1)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: metal)

    return pretend


@pytest.mark.parametrize(
    ("gpus", "metal", "chosen"),
    [(0, False, "cpu"), (2, False, "cuda:0"), (0, True, "mps:0"), (1, True, "mps:0")],
)
def test_auto_takes_metal_then_cuda_then_cpu(machine, gpus, metal, chosen):
    machine(gpus, metal)
    assert choose() == choose("auto") == torch.device(chosen)


def test_available_lists_the_best_first(machine):
    machine(gpus=2, metal=True)
    assert available() == ["mps", "cuda:0", "cuda:1", "cpu"]


@pytest.mark.parametrize(
    ("given", "device"),
    [
        ("cpu", "cpu"),
        ("CPU", "cpu"),
        ("cpu:0", "cpu"),
        (torch.device("cpu"), "cpu"),
        ("cuda:0", "cuda:0"),
        (torch.device("cuda", 1), "cuda:1"),
        ("cuda", "cuda:1"),  # the current one
        ("mps", "mps:0"),
    ],
)
def test_a_device_is_named_as_its_tensors_name_it(machine, given, device):
    machine(gpus=2, metal=True)
    assert choose(given) == torch.device(device)


@pytest.mark.parametrize(
    ("given", "has", "says"),
    [
        ("cuda:7", {"gpus": 2}, "no device 'cuda:7' on this machine; it has cuda:0, cuda:1, cpu"),
        ("cuda", {}, "it has cpu: choose one of them, or 'auto'"),
        ("mps", {"gpus": 1}, "(Metal needs macOS on Apple silicon); it has cuda:0, cpu"),
        ("gpu", {}, "no device 'gpu' on this machine; it has cpu"),
        ("cdua", {"gpus": 1}, "it has cuda:0, cpu: choose one of them, or 'auto'"),
        ("meta", {}, "no device 'meta'"),
        ("", {}, "no device ''"),
    ],
)
def test_a_device_that_does_not_exist_names_those_that_do(machine, monkeypatch, given, has, says):
    machine(**has)
    monkeypatch.setattr(torch.version, "cuda", "13.0" if has else None)
    with pytest.raises(DeviceError) as caught:
        choose(given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["cuda", "tpu", "cdua"])
def test_a_device_is_not_guessed_at(machine, given):
    """The list says it all; a guess may be what was asked for, or another machine's word."""
    machine(gpus=0)
    with pytest.raises(DeviceError, match="it has cpu: choose one of them, or 'auto'$"):
        choose(given)


@pytest.mark.parametrize(
    ("built", "says"), [(None, "is built without CUDA"), ("13.0", "finds no GPU or no driver")]
)
def test_a_missing_gpu_says_why(machine, monkeypatch, built, says):
    machine(gpus=0)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(DeviceError, match=says):
        choose("cuda")


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ("auto", torch.float32),
        ("float32", torch.float32),
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        ("BFloat16", torch.bfloat16),
        ("fp16", torch.float16),
        ("half", torch.float16),
        ("float64", torch.float64),
        (torch.float16, torch.float16),
        ("torch.bfloat16", torch.bfloat16),
    ],
)
def test_data_types_by_their_usual_names(given, dtype):
    assert choose_dtype(given, "cpu") is dtype


@pytest.mark.parametrize("given", ["int8", "float8", torch.int64, "", "bflaot16"])
def test_an_unknown_data_type_names_the_known(given):
    with pytest.raises(DeviceError, match="choose one of auto, float32, float16, bfloat16"):
        choose_dtype(given)


def test_metal_has_no_float64():
    with pytest.raises(DeviceError, match="Metal has no float64; choose float32"):
        choose_dtype("float64", "mps")
