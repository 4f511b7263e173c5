from collections import Counter

import numpy as np
import pytest
import torch

from cleangpt2.errors import ConfigError
from tests.sft.lessons import batches, encoded, some


def conversations_of(made, steps):
    return Counter(made.content(np.arange(*steps))["conversation"].tolist())


@pytest.mark.parametrize("packing", ["bfd", "pad"])
def test_an_epoch_takes_every_example_once_in_an_order_of_its_own(packing):
    made = batches(some(301), packing=packing)
    n = made.steps_per_epoch
    assert conversations_of(made, (0, n)) == conversations_of(made, (n, 2 * n))
    assert set(conversations_of(made, (0, n)).values()) == {1} and len(made.examples) == 301
    orders = [[made.numbers(step) for step in range(e * n, e * n + n)] for e in (0, 1)]
    assert orders[0] != orders[1]
    assert orders[0] != [batches(some(301), packing=packing, seed=2).numbers(s) for s in range(n)]


def test_batches_of_an_epoch_differ_by_one_row_at_most():
    made = batches(some(50), packing="pad", batch_size=8)
    sizes = [len(made.numbers(step)) for step in range(made.steps_per_epoch)]
    assert sum(sizes) == 50 and max(sizes) <= 8 and max(sizes) - min(sizes) <= 1
    assert made(0).inputs.size(0) == 8  # a slot without a row is empty


def test_a_step_needs_no_step_before_it():
    made, fresh = batches(), batches()
    last = [made(step) for step in range(30)][-1]
    assert all(map(torch.equal, fresh(29), last))


@pytest.mark.parametrize("packing", ["bfd", "pad"])
def test_processes_and_micro_batches_share_the_same_rows(packing):
    made = batches(some(90), packing=packing, batch_size=8)
    for step in (0, made.steps_per_epoch - 1):
        whole = made(step)
        for world, micro in ((1, 4), (2, 2), (4, 1), (8, 1)):
            shares = [slots for rank in range(world) for slots in made.share(rank, world, micro)]
            targets = torch.cat([made(step, slots).targets.flatten() for slots in shares])
            assert sorted(targets[targets >= 0].tolist()) == sorted(
                whole.targets[whole.targets >= 0].tolist()
            )


def test_padded_batches_are_of_like_length_and_their_order_is_not_by_length():
    made = batches(some(400), packing="pad")
    padded = [made(step) for step in range(made.steps_per_epoch)]
    waste = 1 - sum(made.places(s) for s in range(len(padded))) / sum(
        batch.inputs.size(1) * len(made.numbers(step)) for step, batch in enumerate(padded)
    )
    assert waste < 0.05
    widths = [batch.inputs.size(1) for batch in padded]
    assert widths != sorted(widths)


def test_the_run_is_as_long_as_its_epochs_and_its_batch_as_large_as_its_tokens():
    made = batches(some(100), steps=0, epochs=1.5, batch_size=4)
    assert made.config.steps == round(1.5 * made.steps_per_epoch)
    assert (made.config.context, made.config.batch_size) == (32, 4)
    by_tokens = batches(some(100), batch_tokens=300, micro_batches=2, batch_size=2)
    assert by_tokens.B == 10  # rows of nearly 32, and a multiple of 2
    assert by_tokens.config.batch_size == 10
    one = batches([encoded([5], [6, 0])] * 20, packing="pad", batch_tokens=10)
    assert one.B == 5


def test_an_uneven_share_is_refused():
    with pytest.raises(ConfigError, match="a batch of 4 sequences cannot be shared evenly by 3"):
        batches().share(0, 3, 1)
