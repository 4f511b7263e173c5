"""The loss and the log-probs by chunks are those of the plain formulas, in less memory."""

import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from cleangpt2.errors import ConfigError
from cleangpt2.model import chunked, logprobs
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.logprobs import entropy, linear_cross_entropy, token_logprobs
from tests.helpers import run_python, unchecked

N, C, V = 13, 8, 33
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.fixture(params=[1, 4, 5, 13, 100], ids=lambda rows: f"chunks of {rows}")
def chunks(request, monkeypatch):
    """Rows in a chunk: one, some that do not divide 13, all, more than all."""
    monkeypatch.setitem(chunked.CHUNK_LOGITS, "cpu", request.param * V)


def operands(dtype=torch.float64, *, scale=3.0):
    """Peaked distributions, and two targets that do not count."""
    torch.manual_seed(0)
    hidden = (scale * torch.randn(N, C, dtype=dtype)).requires_grad_()
    weight = torch.randn(V, C, dtype=dtype).requires_grad_()
    targets = torch.randint(0, V - 4, (N,))
    targets[[2, 7]] = -100
    return hidden, weight, targets


def same(loss, expected, inputs, dtype, upstream=1.0):
    """Values and gradients agree."""
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
    ours = torch.autograd.grad(loss, inputs, upstream * torch.ones_like(loss))
    plain = torch.autograd.grad(expected, inputs, upstream * torch.ones_like(loss))
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_and_gradients_are_those_of_cross_entropy(dtype, reduction):
    hidden, weight, targets = operands(dtype)
    loss = linear_cross_entropy(hidden, weight, targets, reduction=reduction)
    plain = F.cross_entropy(hidden @ weight.T, targets, reduction=reduction)
    same(loss, plain, (hidden, weight), dtype, upstream=0.37)


@pytest.mark.usefixtures("chunks")
def test_padding_rows_take_no_part():
    hidden, weight, targets = operands()
    loss = linear_cross_entropy(hidden, weight, targets, vocab_size=V - 4)
    same(loss, F.cross_entropy(hidden @ weight[:-4].T, targets), (hidden, weight), torch.float64)
    _, gradient = torch.autograd.grad(
        linear_cross_entropy(hidden, weight, targets, vocab_size=V - 4), (hidden, weight)
    )
    assert not gradient[-4:].any()


def test_a_target_among_the_padding_is_refused():
    hidden, weight, targets = operands()
    targets[0] = V - 1
    with pytest.raises((IndexError, RuntimeError)):
        linear_cross_entropy(hidden, weight, targets, vocab_size=V - 4)


@pytest.mark.usefixtures("chunks")
def test_gradients_are_those_of_finite_differences():
    hidden, weight, targets = operands(scale=1.0)
    assert gradcheck(lambda h, w: linear_cross_entropy(h, w, targets), (hidden, weight))


@pytest.mark.parametrize("other", [-1, 5])
def test_any_number_can_mark_what_does_not_count(other):
    hidden, weight, targets = operands()
    targets[targets == -100] = other
    loss = linear_cross_entropy(hidden, weight, targets, ignore=other)
    plain = F.cross_entropy(hidden @ weight.T, targets, ignore_index=other)
    same(loss, plain, (hidden, weight), torch.float64)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_where_no_target_counts_loss_and_gradients_are_zero(reduction):
    hidden, weight, targets = operands()
    loss = linear_cross_entropy(hidden, weight, torch.full_like(targets, -100), reduction=reduction)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    assert loss == 0
    assert not any(g.any() for g in gradients)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_one_gradient_without_the_other(wanted):
    hidden, weight, targets = operands()
    hidden.requires_grad_(wanted[0])
    weight.requires_grad_(wanted[1])
    inputs = hidden if wanted[0] else weight
    loss = linear_cross_entropy(hidden, weight, targets)
    same(loss, F.cross_entropy(hidden @ weight.T, targets), inputs, torch.float64)


def test_a_second_backward_pass_gives_the_same_gradients():
    hidden, weight, targets = operands()
    loss = linear_cross_entropy(hidden, weight, targets)
    first = torch.autograd.grad(3 * loss, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(3 * loss, (hidden, weight))
    torch.testing.assert_close(second, first)


def test_gradients_are_made_only_where_they_will_be_asked_for(monkeypatch):
    hidden, weight, targets = operands()
    expected = linear_cross_entropy(hidden, weight, targets).detach()
    monkeypatch.setattr(chunked, "_Gradients", None)
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, targets) == expected
    with torch.inference_mode():
        assert linear_cross_entropy(hidden.detach(), weight, targets) == expected


def test_gradients_of_a_tied_weight_add():
    model = GPT2(GPT2Config(vocab_size=V, n_positions=8, n_embd=C, n_layer=1, n_head=2))
    model.double().eval()  # dropout off
    ids = torch.randint(0, V, (2, 9))
    inputs, targets = ids[:, :-1], ids[:, 1:].flatten()
    hidden = model.hidden(inputs).flatten(0, 1)
    loss = linear_cross_entropy(hidden, model.output_weight, targets)
    plain = F.cross_entropy(model(inputs).flatten(0, 1), targets)
    same(loss, plain, tuple(model.parameters()), torch.float64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("chunks")
def test_autocast_changes_the_products_and_no_type_outside(dtype):
    hidden, weight, targets = operands(torch.float32, scale=1.0)
    with torch.autocast("cpu", dtype):
        loss = linear_cross_entropy(hidden, weight, targets)
        logits = F.linear(hidden, weight)
    assert logits.dtype == dtype
    plain = F.cross_entropy(logits.float(), targets)
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-6)  # the same rounding of logits
    exact = torch.autograd.grad(F.cross_entropy(hidden @ weight.T, targets), (hidden, weight))
    ours = torch.autograd.grad(loss, (hidden, weight))
    torch.testing.assert_close(ours, exact, rtol=0, atol=0.01)
    assert [g.dtype for g in ours] == [torch.float32, torch.float32]


def test_sums_over_many_tokens_stay_within_float16():
    hidden = torch.full((2048, C), 100.0, requires_grad=True)
    weight = torch.zeros(V, C, requires_grad=True)
    with torch.autocast("cpu", torch.float16):
        loss = linear_cross_entropy(hidden, weight, torch.zeros(2048, dtype=torch.long))
    gradient = torch.autograd.grad(loss, weight)[0]
    expected = 100 * (1 / V - torch.eye(V)[0])  # the mean of equal tokens; their sum is 200,000
    torch.testing.assert_close(gradient[:, 0], expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_has_a_float32_loss(dtype):
    hidden, weight, targets = (t.detach() for t in operands(torch.float32, scale=1.0))
    hidden, weight = (t.to(dtype).requires_grad_() for t in (hidden, weight))
    loss = linear_cross_entropy(hidden, weight, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        F.cross_entropy(hidden @ weight.T, targets).item(), rel=0.02
    )
    assert {g.dtype for g in torch.autograd.grad(loss, (hidden, weight))} == {dtype}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_targets_may_be_of_any_integer_type(dtype):
    hidden, weight, targets = operands()
    expected = linear_cross_entropy(hidden, weight, targets.clamp(min=0))
    assert linear_cross_entropy(hidden, weight, targets.clamp(min=0).to(dtype)) == expected


def test_other_reductions_are_refused_by_name():
    with pytest.raises(ConfigError, match='reduction is "none": give "mean" or "sum"'):
        unchecked(logprobs.__name__).linear_cross_entropy(*operands(), reduction="none")


SAMPLE = (torch.randint(0, V - 4, (2, 5), generator=torch.Generator().manual_seed(1)),)


def streams(dtype=torch.float64):
    """Two sequences of five tokens."""
    hidden, weight, _ = operands(dtype)
    return hidden.detach()[:10].unflatten(0, (2, 5)).clone().requires_grad_(), weight


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("vocab_size", [None, V - 4])
def test_log_probs_and_entropy_are_those_of_the_softmax(dtype, temperature, vocab_size):
    hidden, weight = streams(dtype)
    (ids,) = SAMPLE
    full = (hidden @ weight[:vocab_size].T / temperature).log_softmax(-1)
    ours = token_logprobs(hidden, weight, ids, temperature, vocab_size=vocab_size)
    same(ours, full.gather(2, ids.unsqueeze(2)).squeeze(2), (hidden, weight), dtype)
    full = (hidden @ weight[:vocab_size].T / temperature).log_softmax(-1)
    ours = entropy(hidden, weight, temperature, vocab_size=vocab_size)
    same(ours, -(full.exp() * full).sum(-1), (hidden, weight), dtype)


@pytest.mark.usefixtures("chunks")
def test_each_log_prob_has_a_gradient_of_its_own():
    hidden, weight = streams()
    assert gradcheck(lambda h, w: token_logprobs(h, w, *SAMPLE, 0.7), (hidden, weight))
    assert gradcheck(lambda h, w: entropy(h, w, 0.7), (hidden, weight))


def test_a_token_that_is_not_there_has_log_prob_and_gradient_zero():
    hidden, weight = streams()
    ids = SAMPLE[0].clone()
    ids[1, 3] = -100
    logprobs = token_logprobs(hidden, weight, ids)
    gradient = torch.autograd.grad(logprobs.sum(), hidden)[0]
    assert logprobs[1, 3] == 0
    assert not gradient[1, 3].any()
    assert gradient[1, 2].any()


def test_the_cross_entropy_is_the_mean_of_the_log_probs():
    hidden, weight = streams()
    (ids,) = SAMPLE
    loss = linear_cross_entropy(hidden.flatten(0, 1), weight, ids.flatten())
    torch.testing.assert_close(loss, -token_logprobs(hidden, weight, ids).mean())


def test_entropy_of_equal_logits_is_the_log_of_the_vocabulary():
    hidden = torch.zeros(1, 3, C)
    expected = torch.full((1, 3), math.log(V - 4))
    torch.testing.assert_close(entropy(hidden, torch.randn(V, C), vocab_size=V - 4), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32_log_probs(dtype):
    hidden, weight = (t.detach() for t in streams(torch.float32))
    (ids,) = SAMPLE
    with torch.autocast("cpu", dtype):
        cast = token_logprobs(hidden, weight, ids), entropy(hidden, weight)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    native = token_logprobs(hidden, weight, ids), entropy(hidden, weight)
    assert {t.dtype for t in (*cast, *native)} == {torch.float32}
    torch.testing.assert_close(cast, native)


PEAK = """
import sys
from pathlib import Path
import torch
import torch.nn.functional as F
from cleangpt2.model.logprobs import entropy, linear_cross_entropy, token_logprobs

def peak():
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) >> 10

torch.set_num_threads(1)
hidden = torch.randn(4096, 8, requires_grad=True)
weight = torch.randn(20_000, 8, requires_grad=True)
ids = torch.randint(0, 20_000, (4096,))
before = peak()
rows = hidden[None], weight
loss = {
    "loss": lambda: linear_cross_entropy(hidden, weight, ids),
    "logprobs": lambda: token_logprobs(*rows, ids[None]).mean(),
    "entropy": lambda: entropy(*rows).mean(),
    "plain": lambda: F.cross_entropy(hidden @ weight.T, ids),
}[sys.argv[1]]
torch.autograd.grad(loss(), (hidden, weight))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's memory counters")
def test_the_logits_of_a_batch_never_exist_at_once(tmp_path):
    script = tmp_path / "peak.py"
    script.write_text(PEAK, encoding="utf-8")
    added = {}
    for way in ("loss", "logprobs", "entropy", "plain"):
        done = run_python(str(Path(script)), way)
        assert done.returncode == 0, done.stderr
        added[way] = int(done.stdout)
    logits = 4096 * 20_000 * 4 >> 20  # 312 MiB
    assert added["plain"] > 2 * logits, added  # the measure sees logits where there are some
    assert max(added["loss"], added["logprobs"], added["entropy"]) < logits, added


def test_pytorch_without_its_own_loss_will_do(monkeypatch):
    monkeypatch.delattr(F, "linear_cross_entropy", raising=False)  # new in PyTorch 2.13
    hidden, weight, targets = operands()
    plain = F.cross_entropy(hidden @ weight.T, targets)
    same(linear_cross_entropy(hidden, weight, targets), plain, (hidden, weight), torch.float64)
