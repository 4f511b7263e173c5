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
    ],
)
def test_values_out_of_range_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**changes)
