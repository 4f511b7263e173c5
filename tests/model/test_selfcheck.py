"""A wrong kernel is found, named and avoided, or the device is refused."""

import dataclasses
import json
import warnings

import pytest
import torch
import torch.nn.functional as F

from cleangpt2.errors import ConfigError, DeviceError
from cleangpt2.model import attention as attention_module
from cleangpt2.model import golden, selfcheck
from cleangpt2.model import gpt2 as gpt2_module
from cleangpt2.model.attention import PATHS, attention
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.pretrained import load_model
from cleangpt2.model.selfcheck import attention_path, check_device

CPU = torch.device("cpu")
KERNEL = F.scaled_dot_product_attention
TINY = GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4)


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch):
    """A cache folder of its own and a process that has checked nothing yet."""
    monkeypatch.setenv("CLEANGPT2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(selfcheck, "_seen", {})
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def drawn():
    """The inputs, drawn once for all tests of this file."""
    return {(B, H): golden.queries_keys_values(B, H) for B, H in ((2, 2), (1, golden.WIDE))}


@pytest.fixture
def kernel(monkeypatch, drawn):
    """Put another kernel in the place of PyTorch's, on every device and under every name."""
    monkeypatch.setattr(golden, "queries_keys_values", lambda B, H: drawn[B, H])

    def replace(wrong) -> None:
        def call(q, k, v, *, attn_mask=None, is_causal=False, scale=None, dropout_p=0.0):
            return wrong(q, k, v, attn_mask, is_causal, scale)

        monkeypatch.setattr(attention_module.F, "scaled_dot_product_attention", call)

    return replace


def right(q, k, v, mask, is_causal, scale):
    return KERNEL(q, k, v, attn_mask=mask, is_causal=is_causal, scale=scale)


def positions(q, k):
    """Of queries (T, 1) and keys (S,)."""
    return torch.arange(q.size(2))[:, None], torch.arange(k.size(2))


# --- wrong kernels, each like one that has been shipped --------------------------------------


def sees_everything(q, k, v, mask, is_causal, scale):
    return right(q, k, v, mask, False, scale)


def masks_four_queries_as_one(q, k, v, mask, is_causal, scale):
    """Metal in half precision (pytorch#195910)."""
    if is_causal:
        t, s = positions(q, k)
        mask = s <= t // 4 * 4 + 3
    return right(q, k, v, mask, False, scale)


def sees_the_next_token(q, k, v, mask, is_causal, scale):
    if is_causal:
        t, s = positions(q, k)
        mask = s <= t + 1
    return right(q, k, v, mask, False, scale)


def misses_its_own_token(q, k, v, mask, is_causal, scale):
    if is_causal:
        t, s = positions(q, k)
        mask = (s < t) | (s == 0)
    return right(q, k, v, mask, False, scale)


def sees_one_token_too_many(q, k, v, mask, is_causal, scale):
    """One query of 1024, and one key."""
    if is_causal:
        t, s = positions(q, k)
        mask = (s <= t) | ((t == 500) & (s == 501))
    return right(q, k, v, mask, False, scale)


def scales_by_more(q, k, v, mask, is_causal, scale):
    return right(q, k, v, mask, is_causal, scale * 1.25 if is_causal else scale)


def forgets_the_last_of_1024(q, k, v, mask, is_causal, scale):
    """Metal on gpt2-medium (pytorch#116331)."""
    y = right(q, k, v, mask, is_causal, scale)
    if is_causal and q.size(2) == 1024:
        y = torch.cat([y[:, :, :-1], torch.zeros_like(y[:, :, -1:])], dim=2)
    return y


def loses_count_of_many_scores(q, k, v, mask, is_causal, scale):
    y = right(q, k, v, mask, is_causal, scale)
    return y if q.size(1) * q.size(2) * k.size(2) < 2**24 else y.flip(1)


def takes_the_mask_from_the_upper_left(q, k, v, mask, is_causal, scale):
    T, S = q.size(2), k.size(2)
    if mask is not None and mask.dim() == 2 and T < S:
        mask = torch.ones(T, S, dtype=torch.bool).tril()
    return right(q, k, v, mask, is_causal, scale)


def takes_one_rows_mask_for_all(q, k, v, mask, is_causal, scale):
    mask = mask[:1] if mask is not None and mask.dim() == 4 else mask
    return right(q, k, v, mask, is_causal, scale)


def reads_past_the_keys_when_decoding(q, k, v, mask, is_causal, scale):
    """Metal before 2.11 (pytorch#174861)."""
    if q.size(2) == 1 and k.size(2) >= 1024:
        k = k.roll(1, dims=2)
    return right(q, k, v, mask, is_causal, scale)


def takes_queries_for_contiguous(q, k, v, mask, is_causal, scale):
    """Metal in 2.8 (pytorch#163597)."""
    if not q.is_contiguous():
        q = q.transpose(1, 2).reshape(q.shape)
    return right(q, k, v, mask, is_causal, scale)


def changes_the_documents(change):
    """The mask of packed documents alone, the one made of numbers, is taken for another."""

    def wrong(q, k, v, mask, is_causal, scale):
        if mask is not None and mask.is_floating_point():
            mask = change(mask.clone())
        return right(q, k, v, mask, is_causal, scale)

    return wrong


def lets_the_last_columns_in(mask):
    """Of a width that is no multiple of 8."""
    mask[..., mask.size(-1) // 8 * 8 :] = 0
    return mask


def doubles_the_gradient_of_keys_in_documents(q, k, v, mask, is_causal, scale):
    if mask is not None and mask.is_floating_point():
        k = 2 * k - k.detach()
    return right(q, k, v, mask, is_causal, scale)


def gives_nan(q, k, v, mask, is_causal, scale):
    return right(q, k, v, mask, is_causal, scale) * torch.nan


def has_no_kernel(q, k, v, mask, is_causal, scale):
    if is_causal:
        raise RuntimeError("no kernel\nfor this device")
    return right(q, k, v, mask, is_causal, scale)


def doubles_the_gradient(index):
    """Of q, k or v; the output stays right."""

    def wrong(q, k, v, mask, is_causal, scale):
        given = [q, k, v]
        if is_causal:
            given[index] = 2 * given[index] - given[index].detach()
        return right(*given, mask, is_causal, scale)

    return wrong


WRONG = [
    (sees_everything, "mask", "2 tokens at once, output"),
    (masks_four_queries_as_one, "mask", "2 tokens at once, output"),
    (sees_the_next_token, "mask", "2 tokens at once, output"),
    (misses_its_own_token, "mask", "2 tokens at once, output"),
    (sees_one_token_too_many, "mask", "at position 500"),
    (scales_by_more, "mask", "2 tokens at once, output"),
    (forgets_the_last_of_1024, "mask", "1024 tokens at once, output"),
    (loses_count_of_many_scores, "plain", "16 heads of 1024 tokens, output"),
    (takes_the_mask_from_the_upper_left, "plain", "424 tokens after 600 in the cache, output"),
    (takes_one_rows_mask_for_all, "plain", "3 tokens after 700 and 300 in the cache, output"),
    (reads_past_the_keys_when_decoding, "plain", "1 token after 1023 in the cache, output"),
    (takes_queries_for_contiguous, "plain", "2 tokens at once, output"),
    (
        doubles_the_gradient_of_keys_in_documents,
        "plain",
        "document of 1023 tokens packed in row 0, gradient of k",
    ),
    (gives_nan, "plain", "1 token at once, output, off by nan at position 0"),
    (doubles_the_gradient(0), "mask", "2 tokens at once, gradient of q"),
    (doubles_the_gradient(1), "mask", "2 tokens at once, gradient of k"),
    (doubles_the_gradient(2), "mask", "tokens at once, gradient of v"),
    (has_no_kernel, "mask", "fails with 'no kernel for this device'"),
]


@pytest.mark.parametrize(("wrong", "path", "case"), WRONG)
def test_a_wrong_kernel_is_named_and_avoided(kernel, wrong, path, case):
    kernel(wrong)
    verdict = check_device(CPU, torch.float32)
    assert verdict.path == path
    assert [sentence.split(":")[0] for sentence in verdict.wrong] == [
        repr(name) for name in PATHS[: PATHS.index(path)]
    ]
    assert case in verdict.wrong[0]


@pytest.mark.parametrize(
    "wrong",
    [masks_four_queries_as_one, sees_the_next_token, scales_by_more, forgets_the_last_of_1024],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_mistake_shows_through_the_rounding_of_half_precision(kernel, wrong, dtype):
    kernel(wrong)
    assert selfcheck.first_mistake(CPU, dtype, "causal") is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "change",
    [
        torch.zeros_like,
        lambda mask: torch.full_like(mask, -torch.inf).triu(1),  # no borders
        lambda mask: mask.roll((1, 1), dims=(-2, -1)),  # borders one token late
        lambda mask: mask.mT,
        lambda mask: mask[:1],
        lambda mask: mask.amax(dim=0, keepdim=True),
        lets_the_last_columns_in,
    ],
)
def test_a_kernel_that_mixes_packed_documents_is_found(kernel, monkeypatch, change, dtype):
    kernel(changes_the_documents(change))
    monkeypatch.setattr(golden, "results", golden.packed_documents)
    assert "packed in row" in selfcheck.first_mistake(CPU, dtype, "mask")


def test_positions_that_do_not_begin_anew_are_found(monkeypatch):
    monkeypatch.setattr(gpt2_module, "document_positions", lambda documents: documents * 0)
    monkeypatch.setattr(golden, "results", golden.small_model_packed)
    mistake = selfcheck.first_mistake(CPU, torch.float32, "plain")
    assert mistake.startswith("a whole small model, logits of a packed document of 40 tokens, off")


def test_a_kernel_wrong_in_one_data_type_is_avoided_in_that_alone(kernel):
    def wrong(q, k, v, mask, is_causal, scale):
        return right(q, k, v, mask, is_causal and q.dtype != torch.bfloat16, scale)

    kernel(wrong)
    assert check_device(CPU, torch.float32).path == "causal"
    assert check_device(CPU, torch.bfloat16).path == "mask"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_this_machine_is_right_in_every_data_type(dtype):
    verdict = check_device(CPU, dtype)
    assert (verdict.path, verdict.wrong, verdict.warning) == ("causal", (), None)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        pytest.param(torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(torch.float16, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("path", PATHS[1:])
def test_this_machine_is_right_on_the_other_paths_too(dtype, path):
    assert selfcheck.first_mistake(CPU, dtype, path) is None


# --- what follows from it ---------------------------------------------------------------------


def test_a_device_without_a_right_path_is_refused(kernel, monkeypatch, memory):
    kernel(gives_nan)
    monkeypatch.setattr(attention_module, "_plain", lambda q, k, v, mask, scale, dropout: v * 2)
    with pytest.raises(DeviceError) as caught:
        check_device(CPU, torch.bfloat16)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"cpu in bfloat16 (PyTorch {torch.__version__}) computes wrongly on every attention path",
        "'causal': 1 token at once, output, off by nan",
        "'mask': 1 token at once",
        "'plain': 1 token at once, output, off by 1 at position 0",
        "choose device='cpu' and dtype='float32'",
    ):
        assert part in message
    assert not memory.exists()  # it may have been the heat of the day: the next try looks again


@pytest.mark.parametrize(
    ("function", "wrong"), [("gelu", torch.relu), ("layer_norm", None), ("embedding", None)]
)
def test_what_stands_around_the_attention_is_checked_too(monkeypatch, function, wrong):
    usual = getattr(F, function)

    def call(*args, **kwargs):
        return wrong(args[0]) if wrong else usual(*args, **kwargs) * 1.01

    monkeypatch.setattr(F, function, call)
    with pytest.raises(DeviceError, match="'causal': a whole small model, logits, off by"):
        check_device(CPU, torch.float32)


def test_a_full_device_is_not_called_wrong(kernel):
    def full(q, k, v, mask, is_causal, scale):
        raise torch.OutOfMemoryError("out of memory")

    kernel(full)
    with pytest.raises(DeviceError, match="cpu has no memory left to be checked: free some, or"):
        check_device(CPU, torch.float32)


@pytest.fixture
def saved(tmp_path):
    """A model's folder."""
    GPT2(TINY).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def paths(model: GPT2) -> set[str]:
    return {block.attn.path for block in model.h}


def test_a_loaded_model_takes_the_right_path_and_says_so(kernel, saved):
    ids = torch.arange(12)
    expected = load_model(saved, device="cpu")(ids)
    selfcheck._seen.clear()
    kernel(sees_the_next_token)
    with pytest.warns(UserWarning, match="cpu in float64") as caught:
        model = load_model(saved, device="cpu", dtype="float64")
    (warning,) = caught
    assert "it takes another, slower path there, 'mask'" in str(warning.message)
    assert "'causal': 2 tokens at once, output, off by" in str(warning.message)
    assert "\n" not in str(warning.message)
    assert paths(model) == {"mask"}
    torch.testing.assert_close(model(ids), expected.double(), atol=1e-5, rtol=1e-4)


def test_a_loaded_model_takes_the_usual_path_without_a_word(saved):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert paths(load_model(saved, device="cpu")) == {"causal"}
    assert caught == []


def test_loading_is_refused_where_nothing_is_right(kernel, monkeypatch, saved):
    kernel(gives_nan)
    monkeypatch.setattr(attention_module, "_plain", lambda q, *_: q * torch.nan)
    with pytest.raises(DeviceError, match="computes wrongly on every attention path"):
        load_model(saved, device="cpu")


def test_a_model_that_attends_in_float32_is_checked_in_float32_too(kernel):
    def wrong(q, k, v, mask, is_causal, scale):
        return right(q, k, v, mask, is_causal and q.dtype != torch.float32, scale)

    kernel(wrong)
    assert attention_path(TINY, CPU, torch.bfloat16) == "causal"
    upcast = dataclasses.replace(TINY, reorder_and_upcast_attn=True)
    with pytest.warns(UserWarning, match="cpu in float32"):
        assert attention_path(upcast, CPU, torch.bfloat16) == "mask"


# --- remembered -------------------------------------------------------------------------------


@pytest.fixture
def calls(kernel) -> list[torch.dtype]:
    """One entry for each call of the kernel."""
    seen = []

    def count(q, k, v, mask, is_causal, scale):
        seen.append(q.dtype)
        return right(q, k, v, mask, is_causal, scale)

    kernel(count)
    return seen


def test_a_verdict_is_remembered_in_the_process(calls, monkeypatch):
    first = check_device(CPU, torch.float32)
    count = len(calls)
    assert count > 10
    monkeypatch.setenv("CLEANGPT2_CACHE", "")  # not from the file
    again = check_device(CPU, torch.float32)
    assert len(calls) == count
    assert (first.remembered, again.remembered) == (False, True)
    assert (again.path, again.seconds) == (first.path, first.seconds)


def test_a_verdict_is_remembered_by_the_next_process(kernel, calls):
    kernel(sees_the_next_token)
    first = check_device(CPU, torch.float32)
    selfcheck._seen.clear()
    kernel(gives_nan)  # would be noticed, were it asked
    again = check_device(CPU, torch.float32)
    assert again.remembered
    assert (again.path, again.wrong, again.seconds) == ("mask", first.wrong, first.seconds)
    assert again.warning == first.warning


def test_a_fresh_check_asks_the_device_and_replaces_what_was_known(kernel, calls):
    check_device(CPU, torch.float32)
    kernel(sees_the_next_token)
    assert check_device(CPU, torch.float32).path == "causal"
    fresh = check_device(CPU, torch.float32, fresh=True)
    assert (fresh.path, fresh.remembered) == ("mask", False)
    selfcheck._seen.clear()
    assert check_device(CPU, torch.float32).path == "mask"


def test_each_data_type_is_checked_by_itself(calls):
    check_device(CPU, torch.float32)
    assert set(calls) == {torch.float32}
    check_device(CPU, torch.bfloat16)
    assert set(calls) == {torch.float32, torch.bfloat16}


@pytest.fixture
def reads(monkeypatch):
    """How often the cases run; they all pass."""
    runs = []

    def pass_all(device, dtype, path):
        runs.append(path)

    monkeypatch.setattr(selfcheck, "first_mistake", pass_all)
    return runs


def test_another_pytorch_device_driver_or_code_is_checked_again(reads, monkeypatch, tmp_path):
    def check() -> int:
        """How many checks there have been, in a process that knows only the folder."""
        selfcheck._seen.clear()
        check_device(CPU, torch.float32)
        return len(reads)

    assert [check(), check()] == [1, 1]
    facts = selfcheck.describe(CPU)
    for name, value in (("name", "another"), ("driver", "another")):
        changed = dataclasses.replace(facts, **{name: value})
        monkeypatch.setattr(selfcheck, "describe", lambda device, changed=changed: changed)
        before = len(reads)
        assert [check(), check()] == [before + 1, before + 1]
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert [check(), check()] == [4, 4]
    other = tmp_path / "model" / golden.FILE.name
    other.parent.mkdir()
    other.write_bytes(golden.FILE.read_bytes())
    monkeypatch.setattr(golden, "FILE", other)  # no code beside it
    assert [check(), check()] == [5, 5]
    (other.parent / "attention.py").write_text("changed", encoding="utf-8")
    assert [check(), check()] == [6, 6]
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert [check(), check()] == [7, 7]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"path": "causal"}',
        b'{"path": "flash", "wrong": [], "seconds": 1}',
        b'{"path": ["causal"], "wrong": [], "seconds": 1}',
        b'{"path": "causal", "wrong": [1], "seconds": 1}',
        b'{"path": "causal", "wrong": null, "seconds": 1}',
        b'{"path": "causal", "wrong": [], "seconds": "long"}',
        b'{"path": "causal", "wrong": [], "seconds": []}',
    ],
)
def test_a_damaged_memory_is_ignored_and_written_anew(reads, memory, content):
    check_device(CPU, torch.float32)
    (file,) = memory.iterdir()
    good = json.loads(file.read_text(encoding="utf-8"))
    file.write_bytes(content)
    selfcheck._seen.clear()
    assert check_device(CPU, torch.float32).remembered is False
    assert json.loads(file.read_text(encoding="utf-8")).keys() == good.keys()
    assert list(memory.iterdir()) == [file]
    assert len(reads) == 2


def test_a_folder_that_cannot_be_written_is_no_error(reads, memory, tmp_path, monkeypatch):
    memory.write_text("a file where the folder should be", encoding="utf-8")
    assert check_device(CPU, torch.float32).path == "causal"
    selfcheck._seen.clear()
    assert check_device(CPU, torch.float32).remembered is False


def test_nothing_is_left_behind_where_the_file_cannot_be_replaced(reads, memory, monkeypatch):
    def refuse(self, target):
        raise PermissionError("open elsewhere")  # as Windows does

    monkeypatch.setattr(selfcheck.Path, "replace", refuse)
    check_device(CPU, torch.float32)
    assert list(memory.iterdir()) == []


def test_a_user_without_a_home_is_checked_all_the_same(reads, monkeypatch):
    monkeypatch.delenv("CLEANGPT2_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "")

    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(selfcheck.Path, "expanduser", homeless)
    assert check_device(CPU, torch.float32).path == "causal"


def test_where_it_is_remembered(monkeypatch, tmp_path):
    monkeypatch.setenv("CLEANGPT2_CACHE", str(tmp_path / "own"))
    assert selfcheck.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("CLEANGPT2_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert selfcheck.cache_folder() == tmp_path / "xdg" / "cleangpt2"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert selfcheck.cache_folder() == selfcheck.Path.home() / ".cache" / "cleangpt2"


# --- whatever the caller is doing -------------------------------------------------------------


@pytest.mark.parametrize(
    "context",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ],
)
def test_the_callers_mode_does_not_change_the_verdict(context):
    with context():
        assert check_device(CPU, torch.float32).path == "causal"


def test_the_callers_random_numbers_stay_the_same():
    before = torch.get_rng_state()
    check_device(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("precision", "dtype"), [("high", "float16"), ("medium", "bfloat16")])
def test_products_that_may_be_shortened_are_given_more_room(monkeypatch, precision, dtype):
    """TF32 has the bits of float16: a choice of the user's, not a mistake of the device."""
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    real = golden.small_model_at_once

    def shortened(device, given, path):
        for result in real(device, given, path):
            yield result._replace(values=result.values.to(getattr(torch, dtype)).double())

    monkeypatch.setattr(golden, "small_model_at_once", shortened)
    assert selfcheck.first_mistake(CPU, torch.float32, "causal") is None
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    assert "a whole small model" in selfcheck.first_mistake(CPU, torch.float32, "causal")


def test_switches_that_pytorch_cannot_reconcile_count_as_the_widest(monkeypatch):
    def mixed():
        raise RuntimeError("you have used mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", mixed)
    assert selfcheck._precision() == "medium"


# --- the paths themselves ---------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("T", "S"), [(1, 1), (5, 5), (2, 6), (1, 6)])
def test_every_path_gives_the_same_attention(path, T, S):
    q, k, v = (torch.randn(2, 3, length, 8) for length in (T, S, S))
    expected = attention(q, k, v, scale=0.4)
    torch.testing.assert_close(attention(q, k, v, scale=0.4, path=path), expected)
    visible = torch.rand(2, 1, T, S) < 0.5
    visible[..., 0] = True
    expected = attention(q, k, v, scale=0.4, visible=visible)
    torch.testing.assert_close(attention(q, k, v, scale=0.4, visible=visible, path=path), expected)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_drops_weights_and_keeps_their_mean(path):
    q, k, v = (torch.randn(1, 1, 4, 8) for _ in "qkv")
    exact = attention(q, k, v, scale=0.4, path=path)
    many = attention(
        *(x.expand(4000, 1, 4, 8) for x in (q, k, v)), scale=0.4, dropout=0.3, path=path
    )
    error = many.std(dim=0) / 4000**0.5
    assert error.max() > 0.001
    assert ((many.mean(dim=0) - exact[0]).abs() < 5 * error + 1e-5).all()


@pytest.mark.parametrize(
    ("path", "calls"),
    [("causal", [(True, False)]), ("mask", [(False, True)]), ("plain", [])],
)
def test_a_path_asks_the_kernel_for_what_its_name_says(kernel, path, calls):
    seen = []

    def record(q, k, v, mask, is_causal, scale):
        seen.append((is_causal, mask is not None))
        return right(q, k, v, mask, is_causal, scale)

    kernel(record)
    model = GPT2(TINY).eval()
    model.use_attention(path)
    model(torch.arange(9))
    assert seen == calls * TINY.n_layer


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_metal_is_never_asked_for_its_causal_mask_in_half_precision(dtype):
    mps = torch.device("mps")
    assert attention_module.trusted_paths(mps, dtype) == ("mask", "plain")
    assert attention_module.trusted_paths(mps, torch.float32) == PATHS
    assert attention_module.trusted_paths(torch.device("cuda:0"), dtype) == PATHS


def test_a_path_that_is_not_trusted_gives_way_to_the_mask(kernel, monkeypatch):
    seen = []

    def record(q, k, v, mask, is_causal, scale):
        seen.append((is_causal, mask is not None))
        return right(q, k, v, mask, is_causal, scale)

    kernel(record)
    monkeypatch.setattr(attention_module, "trusted_paths", lambda device, dtype: PATHS[1:])
    attention(*(torch.randn(1, 1, 4, 8) for _ in "qkv"), scale=1.0, path="causal")
    assert seen == [(False, True)]


def test_an_unknown_path_names_the_known():
    with pytest.raises(ConfigError, match="no attention path 'flash': choose one of causal, mask"):
        GPT2(TINY).use_attention("flash")
