import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.sft.examples import fit
from cleangpt2.sft.packing import PADDING, best_fit_decreasing, lay_out
from cleangpt2.training.step import IGNORED, accumulate
from tests.sft.lessons import END, batches, encoded, model, some

T = 24


def slow_best_fit(lengths, T):
    """The same by its definition: every row is looked at."""
    rows, rooms, last_filled = [], [], []
    for time, i in enumerate(sorted(range(len(lengths)), key=lambda i: -lengths[i])):
        fitting = [r for r, room in enumerate(rooms) if room >= lengths[i]]
        if not fitting:
            rows.append([])
            rooms.append(T)
            last_filled.append(time)
            fitting = [len(rows) - 1]
        least = min(rooms[r] for r in fitting)
        best = max((r for r in fitting if rooms[r] == least), key=lambda r: last_filled[r])
        rows[best].append(i)
        rooms[best] -= lengths[i]
        last_filled[best] = time
    return rows


@given(st.lists(st.integers(1, T), min_size=1, max_size=60))
def test_packing_is_best_fit_decreasing(lengths):
    rows = best_fit_decreasing(lengths, T)
    assert rows == slow_best_fit(lengths, T)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert max(sum(lengths[i] for i in row) for row in rows) <= T


def test_packing_fills_rows_nearly_whole():
    lengths = np.random.default_rng(0).gamma(2, 40, 2000).clip(1, 512).astype(int).tolist()
    rows = best_fit_decreasing(lengths, 512)
    assert len(rows) <= -(-sum(lengths) // 512) + 1


def test_the_first_token_of_an_example_is_no_target_and_its_last_no_input():
    rows = fit([encoded([5, 6], [7, END]), encoded([8], [9, END])], context=8).rows
    inputs, targets, documents = lay_out([rows])
    assert inputs.tolist() == [[5, 6, 7, 8, 9]]
    assert targets.tolist() == [[IGNORED, 7, END, 9, END]]
    assert documents.tolist() == [[0, 0, 0, 1, 1]]


def test_what_follows_the_last_target_needs_no_place():
    example = encoded([5], [6, END, 7])
    example.mask[3] = False
    assert lay_out([[example]]).inputs.tolist() == [[5, 6]]


def test_an_empty_row_has_no_target_and_no_document():
    batch = lay_out([[], []])
    assert batch.inputs.shape == (2, 1)
    assert batch.targets.tolist() == [[IGNORED]] * 2 and batch.documents.tolist() == [[PADDING]] * 2


def test_rows_of_one_example_need_no_document_mask():
    one, two = encoded([5], [6, END]), encoded([7, 8, 9], [END])
    assert len(lay_out([[one], [two]]).part) == 2
    assert len(lay_out([[one, two]]).part) == 3


# ---- exactness -------------------------------------------------------------------------------


def gradients(parts, dtype):
    """Loss and gradients of the mean over all targets of these parts."""
    made = model().to(dtype)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    loss = accumulate(made, parts, precision="fp32", scaler=scaler)
    return loss, {name: p.grad for name, p in made.named_parameters()}


def one_by_one(conversations):
    return [lay_out([[row]]).part for row in fit(conversations, context=32).rows]


def in_rows(conversations, packing, micro_batches=1, order=1):
    """All of them in one step."""
    made = batches(conversations[::order], packing=packing, micro_batches=micro_batches,
                   batch_size=64)  # fmt: skip
    assert made.steps_per_epoch == 1
    return [made(0, slots).part for slots in made.share(micro_batches=micro_batches)]


@pytest.mark.parametrize(
    "ways",
    [{"packing": "bfd"}, {"packing": "pad"}, {"packing": "bfd", "micro_batches": 8},
     {"packing": "pad", "micro_batches": 16}, {"packing": "bfd", "order": -1},
     {"packing": "bfd", "micro_batches": 64}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_rows_and_parts_change_neither_loss_nor_gradient(ways, dtype, tolerance):
    conversations = some(24)
    parts = in_rows(conversations, **ways)
    assert any(len(part) == 3 for part in parts) == (ways["packing"] == "bfd")
    (loss, found), (expected_loss, expected) = (
        gradients(parts, dtype),
        gradients(one_by_one(conversations), dtype),
    )
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max().item() < tolerance * max(1, largest), name


def test_an_empty_part_adds_nothing():
    conversations = some(6)
    parts = one_by_one(conversations)
    loss, _ = gradients(parts, torch.float64)
    assert gradients([*parts, lay_out([[]]).part], torch.float64)[0] == pytest.approx(loss, abs=0)
