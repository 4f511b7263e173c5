import math

import numpy as np
import pytest

from cleangpt2.data.batches import Batches
from cleangpt2.training.guard import Guard

TOKENS = np.arange(400, dtype=np.uint16)


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.inf), (2.0, math.nan)]
)
def test_what_is_not_finite_is_refused_even_where_no_spikes_are(loss, norm):
    guard = Guard()
    assert f"loss {loss:.4g} and gradient norm {norm:.4g}" == guard.refusal(loss, norm, None)
    assert guard.mean is None and (guard.in_a_row, guard.skipped) == (1, 1)


def test_a_spike_is_measured_from_the_mean_of_recent_losses():
    guard = Guard()
    assert guard.refusal(9.0, 1.0, 1.0) is None  # the first loss has nothing to compare with
    for _ in range(50):
        assert guard.refusal(4.0, 1.0, 1.0) is None
    assert guard.mean == pytest.approx(4.0, abs=0.1)
    assert guard.refusal(5.2, 1.0, 1.0) == "loss 5.2 after a mean of 4.026"
    assert guard.mean == pytest.approx(4.0, abs=0.1)  # what is skipped moves no mean
    assert guard.refusal(4.9, 1.0, 1.0) is None
    assert guard.refusal(50.0, 1.0, None) is None


def test_a_good_step_ends_the_row_and_not_the_count():
    guard = Guard()
    for loss in (math.nan, 2.0, math.nan, math.nan):
        guard.refusal(loss, 1.0, 1.0)
    assert (guard.in_a_row, guard.skipped) == (2, 3)


def test_the_batches_skipped_in_a_row_are_saved(tmp_path):
    batches = Batches(TOKENS, B=2, T=8, seed=1)
    guard = Guard(in_a_row=3, skipped=5)
    error = guard.give_up(7, "loss nan", batches, tmp_path / "skipped.npz")
    assert "3 steps in a row had to be skipped, the last one step 7 with loss nan" in str(error)
    with np.load(tmp_path / "skipped.npz") as saved:
        assert saved["steps"].tolist() == [5, 6, 7]
        for step, starts, ids in zip(*saved.values(), strict=True):
            inputs, targets = batches(int(step))
            assert (ids[:, :-1] == inputs.numpy()).all() and (ids[:, 1:] == targets.numpy()).all()
            assert (ids[:, 0] == starts).all()  # TOKENS[n] is n
