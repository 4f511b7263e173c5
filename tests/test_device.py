"""Choosing a device and a data type, on machines this one is not."""

import platform
from types import SimpleNamespace

import pytest
import torch

from cleangpt2 import device as module
from cleangpt2.device import DeviceFacts, available, choose, choose_dtype, describe
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


def test_the_processor_is_described():
    facts = describe("cpu")
    assert facts.name
    assert facts.driver == torch.backends.cpu.get_cpu_capability()
    if platform.system() == "Linux":
        assert 2**28 < facts.free_memory <= facts.total_memory


def pretend_files(monkeypatch, files: dict[str, str]) -> None:
    """A machine whose /proc holds these files and no others."""

    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    monkeypatch.setattr(module, "_read", read)


def test_memory_and_name_are_read_from_the_system(monkeypatch):
    memory = "MemTotal:       2048 kB\nMemFree:         1 kB\nMemAvailable:    1024 kB\n"
    processor = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nmodel\t: 7\n"
    pretend_files(monkeypatch, {"/proc/meminfo": memory, "/proc/cpuinfo": processor})
    facts = describe("cpu")
    assert (facts.total_memory, facts.free_memory) == (2 * 2**20, 2**20)
    assert facts.name == "Some CPU @ 3 GHz"


def test_a_system_without_those_files_says_what_it_can(monkeypatch):
    pretend_files(monkeypatch, {})
    sizes = {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(module.os, "sysconf", sizes.__getitem__, raising=False)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    facts = describe("cpu")
    assert (facts.name, facts.total_memory, facts.free_memory) == ("arm64", 40960, None)
    monkeypatch.delattr(module.os, "sysconf")  # Windows
    facts = describe("cpu")
    assert (facts.total_memory, facts.free_memory) == (None, None)


GB = 10**9


@pytest.mark.parametrize(
    ("limit", "used", "stat", "expected"),
    [
        (2 * GB, GB // 2, "anon 1\n", (2 * GB, 3 * GB // 2)),
        (2 * GB, 2 * GB, f"anon 1\ninactive_file {GB}\n", (2 * GB, GB)),  # files that were read
        (20 * GB, GB, "", (8 * GB, 4 * GB)),
        ("max", GB, "", (8 * GB, 4 * GB)),
        (GB, 2 * GB, "", (GB, 0)),
    ],
)
def test_the_limit_of_a_container_counts(monkeypatch, limit, used, stat, expected):
    group = {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}
    files = {f"/sys/fs/cgroup/{name}": text for name, text in group.items()}
    memory = f"MemTotal: {8 * GB // 1024} kB\nMemAvailable: {4 * GB // 1024} kB\n"
    pretend_files(monkeypatch, files | {"/proc/meminfo": memory})
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert module.main_memory() == pytest.approx(expected, abs=1024)
    assert describe("cpu").free_memory == module.main_memory().free


def test_a_gpu_is_described(machine, monkeypatch):
    machine(gpus=2)
    asked = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: asked.append(d) or (30, 80))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "NVIDIA H200")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 13020, raising=False)
    assert describe("cuda:0") == DeviceFacts(
        name="NVIDIA H200",
        driver="CUDA 13.0, driver 13020, capability 9.0",
        total_memory=80,
        free_memory=30,
    )
    assert asked == [torch.device("cuda", 0)]


def test_metal_is_described(machine, monkeypatch):
    machine(metal=True)
    mps = SimpleNamespace(recommended_max_memory=lambda: 70, driver_allocated_memory=lambda: 20)
    monkeypatch.setattr(torch, "mps", mps)
    monkeypatch.setattr(module, "_processor", lambda: "Apple M4")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.1", ("", "", ""), "arm64"))
    facts = DeviceFacts(name="Apple M4", driver="macOS 26.1", total_memory=70, free_memory=50)
    assert describe() == facts


def test_a_device_that_is_not_here_is_not_described(machine):
    machine()
    with pytest.raises(DeviceError, match="no device 'cuda'"):
        describe("cuda")
