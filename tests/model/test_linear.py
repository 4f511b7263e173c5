"""The linear layer gives what PyTorch's own gives, whichever kernel does the work."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cleangpt2.model import linear as module
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.linear import Linear, linear


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return torch.randn(48, 32), torch.randn(48)


@pytest.fixture
def quick_calls(monkeypatch):
    """The calls that left PyTorch's usual way."""
    if module._ONEDNN is None:
        pytest.skip("this build of PyTorch has no oneDNN")
    calls, quick = [], module._ONEDNN

    def spy(*args):
        calls.append(args)
        return quick(*args)

    monkeypatch.setattr(module, "_ONEDNN", spy)
    return calls


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(32),
        torch.randn(1, 32),
        torch.randn(5, 32),
        torch.randn(2, 3, 32),
        torch.randn(0, 32),
        torch.randn(2, 32, 6).transpose(1, 2)[:, ::2],
        torch.randn(1, 32).expand(4, 32),
    ],
    ids=["one", "row", "rows", "batch", "none", "strided", "expanded"],
)
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_the_result_is_that_of_pytorch(x, bias, weights, quick_calls):
    weight, b = weights[0], weights[1] if bias else None
    wide = F.linear(x.double(), weight.double(), None if b is None else b.double())
    torch.testing.assert_close(linear(x, weight, b).double(), wide, rtol=1e-5, atol=1e-5)
    assert len(quick_calls) == 1


@torch.inference_mode()
def test_a_transposed_weight_is_read_as_it_lies(weights, quick_calls):
    x, weight = torch.randn(3, 32), torch.randn(32, 48).t()
    torch.testing.assert_close(linear(x, weight, weights[1]), F.linear(x, weight, weights[1]))


def test_training_takes_the_way_that_has_gradients(weights, quick_calls):
    layer = Linear(32, 48)
    x = torch.randn(4, 32, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(4, 32))
    assert quick_calls == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_other_types_take_the_usual_way(dtype, weights, quick_calls):
    x, weight, bias = torch.randn(4, 32).to(dtype), weights[0].to(dtype), weights[1].to(dtype)
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))
    assert quick_calls == []


@torch.inference_mode()
def test_autocast_still_narrows(weights, quick_calls):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.randn(4, 32), *weights).dtype == torch.bfloat16
    assert quick_calls == []


@torch.inference_mode()
def test_a_switched_off_library_is_not_used(weights, quick_calls):
    enabled = torch._C._get_mkldnn_enabled()  # `flags` warns about Intel's GPUs
    torch._C._set_mkldnn_enabled(False)
    try:
        linear(torch.randn(4, 32), *weights)
    finally:
        torch._C._set_mkldnn_enabled(enabled)
    assert quick_calls == []


@torch.inference_mode()
def test_a_build_without_the_library_works(weights, monkeypatch):
    monkeypatch.setattr(module, "_ONEDNN", None)
    x = torch.randn(4, 32)
    torch.testing.assert_close(linear(x, *weights), F.linear(x, *weights), rtol=0, atol=0)


@torch.inference_mode()
def test_every_product_of_the_model_goes_this_way(quick_calls):
    model = GPT2(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=3, n_head=2))
    model([1, 2, 3])
    assert len(quick_calls) == 3 * 4 + 1  # four in a block, and the output layer
    others = [m for m in model.modules() if isinstance(m, nn.Linear) and type(m) is not Linear]
    assert others == []
