"""Documents packed into one row: each gives what it gives alone."""

import dataclasses

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cleangpt2.errors import ContextLengthError, InputError
from cleangpt2.model import attention as attention_module
from cleangpt2.model import gpt2 as gpt2_module
from cleangpt2.model.attention import PATHS
from cleangpt2.model.cache import KVCache
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.documents import document_mask, document_numbers, document_positions
from cleangpt2.model.gpt2 import GPT2
from tests.helpers import unchecked
from tests.model.hard_weights import deviation, hard_model

T = 12
CONFIG = GPT2Config(
    vocab_size=64, n_positions=T, n_embd=32, n_layer=2, n_head=4,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)  # fmt: skip
MODEL = hard_model(CONFIG)
EXACT = hard_model(CONFIG).double()
IDS = torch.randint(64, (4, T), generator=torch.Generator().manual_seed(1))
BORDERS = st.lists(st.lists(st.booleans(), min_size=T, max_size=T), min_size=1, max_size=3)

ALONE = [True] * T
TOGETHER = [False] * T
MIXED = [False, False, True, True, False, False, False, True, False, False, False, True]


def numbers(is_first: list[list[bool]]) -> Tensor:
    """Documents whose numbers rise by more than one and fall, too: only a change counts."""
    return (torch.tensor(is_first).cumsum(1) * 7) % 5


def lengths(documents: Tensor) -> list[list[int]]:
    """How many tokens each document of each row has."""
    return [row.unique_consecutive(return_counts=True)[1].tolist() for row in documents]


def each_alone(model: GPT2, ids: Tensor, documents: Tensor) -> Tensor:
    """Hidden states of every document in a forward pass of its own, side by side again."""
    rows = [
        torch.cat([model.hidden(part[None]) for part in row.split(sizes)], dim=1)
        for row, sizes in zip(ids, lengths(documents), strict=True)
    ]
    return torch.cat(rows)


@given(BORDERS)
@example([ALONE])
@example([TOGETHER])
def test_masks_and_positions_are_those_of_a_plain_loop(is_first):
    documents = numbers(is_first)
    positions, mask = document_positions(documents), document_mask(documents)
    for row in range(len(documents)):
        begin = 0
        for query in range(T):
            begin = query if is_first[row][query] else begin
            assert positions[row, query] == query - begin
            seen = [key for key in range(T) if mask[row, 0, query, key]]
            assert seen == list(range(begin, query + 1))


def test_a_document_begins_with_its_end_of_text_token():
    ids = torch.tensor([[9, 9, 0, 9, 0, 0, 9], [0, 9, 9, 9, 9, 9, 0]])
    expected = [[0, 0, 1, 1, 2, 3, 3], [1, 1, 1, 1, 1, 1, 2]]
    assert document_numbers(ids, eos_id=0).tolist() == expected


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=20)
@given(BORDERS)
@example([ALONE, TOGETHER, MIXED])
def test_a_packed_row_gives_what_each_document_gives_alone(path, is_first):
    documents = numbers(is_first)
    ids = IDS[: len(documents)]
    for model, bound in ((MODEL, 1e-5), (EXACT, 1e-10)):
        model.use_attention(path)
        with torch.no_grad():
            packed, alone = (
                model.hidden(ids, documents=documents),
                each_alone(model, ids, documents),
            )
        assert (packed - alone).abs().max() < bound * alone.abs().max()


@pytest.mark.parametrize(
    "switch",
    [
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False},
        {"reorder_and_upcast_attn": True},
        {"n_head": 1},
    ],
)
def test_so_it_does_whatever_the_switches(switch):
    model = hard_model(dataclasses.replace(CONFIG, **switch))
    documents = numbers([MIXED, ALONE])
    packed = model.hidden(IDS[:2], documents=documents)
    assert deviation(packed, each_alone(model, IDS[:2], documents)) < 1e-5


@pytest.mark.parametrize("path", PATHS)
def test_gradients_are_the_sum_of_the_documents(path):
    documents = numbers([MIXED, TOGETHER, ALONE])
    ids = IDS[:3]
    upstream = torch.randn(3, T, 32, dtype=torch.float64)
    EXACT.use_attention(path)
    gradients = []
    for hidden in (EXACT.hidden(ids, documents=documents), each_alone(EXACT, ids, documents)):
        loss = (hidden * upstream).sum()
        gradients.append(torch.autograd.grad(loss, list(EXACT.parameters())))
    for packed, alone in zip(*gradients, strict=True):
        assert (packed - alone).abs().max() <= 1e-10 * alone.abs().max()
    with torch.no_grad():
        across = EXACT.hidden(ids)
    assert (across - hidden).abs().max() > 0.1 * hidden.abs().max()  # it is not all the same


def shifted_border(documents: Tensor) -> Tensor:
    """Each document's first token still sees the one before."""
    return document_mask(torch.cat([documents[:, :1], documents[:, :-1]], dim=1))


MISTAKES = {
    "the border is one token late": ("document_mask", shifted_border),
    "the mask is transposed": ("document_mask", lambda d: document_mask(d).mT),
    "the mask is that of the first row": (
        "document_mask",
        lambda d: document_mask(d)[:1].expand(len(d), 1, T, T),
    ),
    "the mask has no borders": ("document_mask", lambda d: document_mask(d * 0)),
    "positions go on": ("document_positions", lambda d: document_positions(d * 0)),
    "positions begin with 1": (
        "document_positions",
        lambda d: (document_positions(d) + 1).clamp(max=T - 1),
    ),
    "positions are those of the first row": (
        "document_positions",
        lambda d: document_positions(d)[:1].expand_as(d),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_would_show(name, monkeypatch):
    monkeypatch.setattr(gpt2_module, *MISTAKES[name])
    documents = numbers([MIXED, [False, *MIXED[:-1]]])
    packed = MODEL.hidden(IDS[:2], documents=documents)
    assert deviation(packed, each_alone(MODEL, IDS[:2], documents)) > 1e-2


# --- what it is computed in, and what it costs --------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 6e-2), (torch.float16, 1e-2)])
def test_halves_and_autocast_do_not_mix_documents(path, dtype, bound):
    calm = GPT2(CONFIG).eval()  # hard weights make half precision noise alone
    calm.use_attention(path)
    documents = numbers([MIXED, TOGETHER])
    exact = each_alone(calm, IDS[:2], documents)
    with torch.autocast("cpu", dtype):
        assert deviation(calm.hidden(IDS[:2], documents=documents), exact) < bound
    half = calm.to(dtype).hidden(IDS[:2], documents=documents)
    assert half.dtype == dtype
    assert deviation(half, exact) < bound


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("path", PATHS)
def test_a_gpu_parts_them_as_the_cpu_does(path):
    model = hard_model(CONFIG)
    documents = numbers([MIXED, ALONE, TOGETHER])
    expected = each_alone(model, IDS[:3], documents)
    model.cuda().use_attention(path)
    packed = model.hidden(IDS[:3].cuda(), documents=documents.cuda())
    assert deviation(packed.cpu(), expected) < 1e-4


@pytest.fixture
def masks(monkeypatch) -> list[tuple[Tensor, Tensor]]:
    """The queries and the mask of every call of PyTorch's kernel."""
    seen, kernel = [], attention_module.F.scaled_dot_product_attention

    def spy(q, k, v, **kwargs):
        seen.append((q, kwargs.get("attn_mask")))
        return kernel(q, k, v, **kwargs)

    monkeypatch.setattr(attention_module.F, "scaled_dot_product_attention", spy)
    return seen


@pytest.mark.parametrize("upcast", [False, True])
@pytest.mark.parametrize(
    ("weights", "autocast"),
    [(torch.float32, False), (torch.float32, True), (torch.float16, False)],
)
def test_the_mask_is_made_once_in_the_data_type_that_the_kernel_takes(
    masks, weights, autocast, upcast
):
    model = hard_model(dataclasses.replace(CONFIG, reorder_and_upcast_attn=upcast)).to(weights)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model.hidden(IDS[:2], documents=numbers([MIXED, TOGETHER]))
    assert len(masks) == CONFIG.n_layer
    for q, mask in masks:
        assert mask is masks[0][1]
        assert mask.dtype == q.dtype
        assert mask.shape == (2, 1, T, T)


def kept_bytes(model: GPT2, documents: Tensor | None) -> int:
    """What the forward pass keeps for the backward pass."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.hidden(IDS, documents=documents)
    return sum(kept.values())


def test_all_layers_keep_one_mask_for_the_backward_pass():
    model = hard_model(dataclasses.replace(CONFIG, n_layer=8))
    positions_and_mask = 4 * T * (8 + 4 * T)  # bytes of int64 and of float32
    extra = kept_bytes(model, numbers([MIXED] * 4)) - kept_bytes(model, None)
    assert extra <= positions_and_mask


# --- what a user may get wrong ------------------------------------------------------------------


def test_forward_takes_lists_and_rows_without_a_batch():
    logits = MODEL(IDS[:2], documents=numbers([MIXED, ALONE]))
    one = MODEL(IDS[0].tolist(), documents=numbers([MIXED])[0].tolist())
    assert deviation(one, logits[0]) < 1e-6
    expected = MODEL.logits(each_alone(MODEL, IDS[:2], numbers([MIXED, ALONE])))
    assert deviation(logits, expected) < 1e-5


def test_documents_and_a_cache_are_refused_and_the_cache_stays_as_it_is():
    cache = KVCache(CONFIG, B=1, like=MODEL.wte.weight)
    with pytest.raises(InputError, match="documents and a cache, .*: leave out one of them"):
        MODEL(IDS[0], cache, documents=[0] * T)
    assert cache.lengths == [0]


@pytest.mark.parametrize("shape", [(1, T), (2, T - 1), (2, 1), (2, T, 1)])
def test_documents_of_another_shape_are_refused(shape):
    model = unchecked("cleangpt2.model.gpt2").GPT2(CONFIG)
    with pytest.raises(InputError, match=r"documents of shape .* for ids of \(2, 12\): give one"):
        model.hidden(IDS[:2], documents=torch.zeros(shape, dtype=torch.long))


def test_a_row_longer_than_the_context_is_refused_though_its_documents_are_short():
    with pytest.raises(ContextLengthError, match="13 tokens do not fit"):
        MODEL([1] * 13, documents=list(range(13)))
