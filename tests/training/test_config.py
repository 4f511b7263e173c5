import math

import pytest

from cleangpt2.errors import ConfigError
from cleangpt2.training.config import PretrainConfig


def test_the_learning_rate_warms_up_stays_and_decays_to_nothing():
    config = PretrainConfig(steps=100, warmup=10, decay=0.3)
    scale = [config.lr_scale(step) for step in range(101)]
    assert scale[0] == pytest.approx(0.1)
    assert scale[9:71] == [1.0] * 62
    assert scale[85] == pytest.approx(0.5)
    assert scale[100] == 0.0


def test_without_warmup_and_decay_it_is_constant():
    config = PretrainConfig(steps=10, warmup=0, decay=0.0)
    assert {config.lr_scale(step) for step in range(10)} == {1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"lr": float("nan")}, "lr is nan; it must be a positive number"),
        ({"muon_lr": float("inf")}, "muon_lr is inf; it must be a positive number"),
        ({"weight_decay": -5.0}, "weight_decay is -5.0; it must be 0 or more"),
        ({"beta1": 1.5}, r"beta1 is 1.5; it must be in \[0, 1\)"),
        ({"decay": 1.5}, "decay is 1.5; it must be a share"),
        ({"warmup": -1}, "warmup is -1; it must be 0 or more"),
        ({"seed": -1}, "seed is -1; it must be in 0 to"),
        ({"micro_batches": 0}, "micro_batches is 0; it must be at least 1"),
        ({"final_lr": 1.5}, "final_lr is 1.5; it must be a share of the peak"),
        ({"patience": 0}, "patience is 0; it must be at least 1, or None"),
        ({"spike": -1.0}, "spike is -1.0; it must be a positive number, or None"),
        ({"keep": 0}, "keep is 0; it must be at least 1"),
        ({"max_skips": 0}, "max_skips is 0; it must be at least 1"),
    ],
)
def test_values_out_of_range_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**changes)


def test_a_cosine_falls_from_the_end_of_warmup_to_the_last_share():
    config = PretrainConfig(steps=110, warmup=10, schedule="cosine", final_lr=0.1, decay=0.5)
    scale = [config.lr_scale(step) for step in range(111)]
    assert scale[9:11] == [1.0, 1.0]
    assert scale[60] == pytest.approx(0.55)
    assert scale[35] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert scale[110] == pytest.approx(0.1)


def test_the_linear_decay_ends_at_the_last_share_too():
    config = PretrainConfig(steps=100, warmup=10, decay=0.3, final_lr=0.2)
    assert config.lr_scale(70) == 1.0
    assert config.lr_scale(85) == pytest.approx(0.6)
    assert config.lr_scale(100) == pytest.approx(0.2)


def test_a_warmup_longer_than_the_run_only_rises():
    config = PretrainConfig(steps=5, warmup=10, schedule="cosine")
    assert config.lr_scale(4) == pytest.approx(0.5)
