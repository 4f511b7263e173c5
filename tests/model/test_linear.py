"""The linear layer gives what PyTorch's own gives, whichever kernel does the work."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

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


INPUTS = {
    "one": torch.randn(32),
    "row": torch.randn(1, 32),
    "rows": torch.randn(5, 32),
    "batch": torch.randn(2, 3, 32),
    "none": torch.randn(0, 32),
    "strided": torch.randn(2, 32, 6).transpose(1, 2)[:, ::2],
    "expanded": torch.randn(1, 32).expand(4, 32),
}


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
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


def operands(weights, x, bias=True):
    """Leaves that gradients are asked for; the input keeps its strides."""
    weight, b = (t.clone().requires_grad_() for t in weights)
    return x.detach().requires_grad_(), weight, b if bias else None


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_gradients_are_those_of_pytorch(x, bias, weights, quick_calls):
    x, weight, b = operands(weights, x, bias)
    inputs = (x, weight, b) if bias else (x, weight)
    upstream = torch.randn(*x.shape[:-1], 48)
    ours = torch.autograd.grad(linear(x, weight, b), inputs, upstream)
    assert len(quick_calls) == 2  # the product, and the gradient in x
    wide = [t.detach().double().requires_grad_() for t in inputs]
    exact = torch.autograd.grad(F.linear(*wide), wide, upstream.double())
    for gradient, expected in zip(ours, exact, strict=True):
        largest = expected.abs().max().item() if expected.numel() else 0
        torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("upstream", [torch.ones(()).expand(6, 48), torch.randn(48, 6).t()])
def test_an_upstream_gradient_may_have_any_strides(upstream, weights):
    inputs = operands(weights, torch.randn(6, 32))
    ours = torch.autograd.grad(linear(*inputs), inputs, upstream)
    plain = torch.autograd.grad(F.linear(*inputs), inputs, upstream)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_gradients_and_their_gradients_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setattr(module, "_ONEDNN", lambda x, weight, bias, *_: F.linear(x, weight, bias))
    shapes = ((2, 3, 4), (5, 4), (5,))
    inputs = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    assert gradcheck(module._Product.apply, inputs)
    assert gradgradcheck(module._Product.apply, inputs)


def test_second_derivatives_are_those_of_pytorch(weights, quick_calls):
    inputs = operands(weights, torch.randn(4, 32))

    def second(way):
        first = torch.autograd.grad(way(*inputs).tanh().sum(), inputs[:2], create_graph=True)
        return torch.autograd.grad(sum(g.pow(3).sum() for g in first), inputs)

    torch.testing.assert_close(second(linear), second(F.linear), rtol=1e-4, atol=1e-3)
    assert quick_calls


@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_no_more_is_kept_and_computed_than_pytorch_would(wanted, weights, quick_calls):
    inputs = [t.requires_grad_(bool(w)) for t, w in zip(operands(weights, torch.randn(4, 32)),
                                                       wanted, strict=True)]  # fmt: skip

    def kept(way):
        places = set()
        with saved_tensors_hooks(lambda t: places.add(t.data_ptr()) or t, lambda t: t):
            return way(*inputs), places

    (y, ours), (_, theirs) = kept(linear), kept(F.linear)
    assert ours == theirs
    quick_calls.clear()
    y.sum().backward()
    assert [t.grad is not None for t in inputs] == [bool(w) for w in wanted]
    assert len(quick_calls) == wanted[0]


def test_a_layer_whose_input_is_kept_alone_has_the_same_gradients(weights):
    layer = Linear(32, 48)
    x = torch.randn(4, 32, requires_grad=True)
    plain = torch.autograd.grad(layer(x).tanh().sum(), (x, *layer.parameters()))
    again = checkpoint(lambda x: layer(x).tanh().sum(), x, use_reentrant=False)
    ours = torch.autograd.grad(again, (x, *layer.parameters()))
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)


def test_the_compiler_sees_the_usual_way(weights, quick_calls, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    linear(torch.randn(4, 32, requires_grad=True), *weights).sum().backward()
    assert quick_calls == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_other_types_take_the_usual_way(dtype, weights, quick_calls):
    x, weight, bias = torch.randn(4, 32).to(dtype), weights[0].to(dtype), weights[1].to(dtype)
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))
    assert quick_calls == []


@pytest.mark.parametrize("training", [False, True])
def test_autocast_still_narrows(training, weights, quick_calls):
    x = torch.randn(4, 32, requires_grad=training)
    with torch.set_grad_enabled(training), torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, *weights).dtype == torch.bfloat16
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


@pytest.mark.parametrize("training", [False, True])
def test_every_product_of_the_model_goes_this_way(training, quick_calls):
    model = GPT2(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=3, n_head=2))
    with torch.set_grad_enabled(training):
        logits = model([1, 2, 3])
    assert len(quick_calls) == 3 * 4 + 1  # four in a block, and the output layer
    if training:
        logits.sum().backward()
        assert len(quick_calls) == 2 * (3 * 4 + 1)
    others = [m for m in model.modules() if isinstance(m, nn.Linear) and type(m) is not Linear]
    assert others == []
