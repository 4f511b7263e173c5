import time

import pytest
import torch

from cleangpt2.training import peak
from cleangpt2.training.arithmetic import flops_per_token
from cleangpt2.training.peak import PeakShare, matmul_rate
from tests.training.runs import MODEL

CPU = torch.device("cpu")


def test_the_rate_is_that_of_a_matrix_product():
    """Of 512 x 512, timed here once more; a machine with other work to do is not steady."""
    rate = matmul_rate(CPU, torch.float32)
    a = torch.ones(512, 512)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    assert rate == pytest.approx(2 * 512**3 / min(times), rel=0.9)
    assert rate > 1e8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_takes_about_a_second_whatever_the_processor_lacks(dtype):
    began = time.perf_counter()
    assert matmul_rate(CPU, dtype) > 0
    assert time.perf_counter() - began < 10  # 0.6 s alone; other tests may be at work


def test_it_draws_none_of_the_runs_random_numbers():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    PeakShare(1, CPU, "fp32")(1.0)
    assert torch.equal(before, torch.get_rng_state())


def test_the_share_is_arithmetic_done_over_arithmetic_possible(monkeypatch):
    asked = []
    monkeypatch.setattr(peak, "matmul_rate", lambda *args: asked.append(args) or 1e9)
    share = PeakShare(flops_per_token(MODEL, 16), CPU, "bf16")
    assert asked == []
    tokens_per_s = 0.25e9 / flops_per_token(MODEL, 16)
    assert [share(tokens_per_s), share(2 * tokens_per_s)] == pytest.approx([0.25, 0.5])
    assert asked == [(CPU, torch.bfloat16)]  # once
    both = PeakShare(flops_per_token(MODEL, 16), CPU, "bf16", processes=2)
    assert both(tokens_per_s) == pytest.approx(0.125)


def test_where_nothing_can_be_measured_the_run_goes_on(monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(peak, "matmul_rate", no_memory)
    share = PeakShare(1, CPU, "fp32")
    assert share(1.0) is None and share(2.0) is None
