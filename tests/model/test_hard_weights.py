"""The weights of the parity tests are as hard as those tests need them to be."""

import pytest
import torch

from cleangpt2.model.config import GPT2Config
from tests.model.hard_weights import deviation, hard_model

CONFIG = GPT2Config(vocab_size=211, n_positions=64, n_embd=64, n_layer=2, n_head=4)
IDS = torch.randint(211, (2, 48), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def loud():
    return hard_model(CONFIG)


@pytest.fixture(scope="module")
def quiet():
    return hard_model(CONFIG, quiet=True)


@pytest.mark.parametrize("weights", ["loud", "quiet"])
def test_attention_is_peaked_but_not_all_of_it(weights, request):
    attention = request.getfixturevalue(weights).trace(IDS).attention
    largest = torch.cat([rows[:, :, 8:].amax(-1).flatten() for rows in attention.values()])
    assert (largest > 0.9).float().mean() > 0.25
    assert (largest < 0.6).float().mean() > 0.1


def test_activations_are_large_and_one_channel_stands_out(loud):
    stream = loud.trace(IDS).hidden["h.0"]
    assert stream.abs().max() > 100
    assert stream.abs().mean(dim=(0, 1)).max() > 5 * stream.abs().mean()


def test_mlp_inputs_reach_the_bend_of_gelu(loud):
    seen = []
    hook = loud.h[1].mlp.c_fc.register_forward_hook(lambda module, args, y: seen.append(y))
    loud(IDS)
    hook.remove()
    # There the tanh form and the exact form differ most.
    assert ((seen[0].abs() > 1.5) & (seen[0].abs() < 3.5)).float().mean() > 0.2


def test_variance_is_small_where_epsilon_shall_show(loud, quiet):
    assert loud.trace(IDS).hidden["embed"].var(dim=-1).max() < 0.05
    for stream in list(quiet.trace(IDS).hidden.values())[:-1]:
        assert stream.var(dim=-1).max() < 0.01


def test_every_bias_and_every_norm_is_random(loud):
    for name, parameter in loud.named_parameters():
        assert parameter.std() > 1e-3, name
        assert parameter.unique().numel() > 0.9 * parameter.numel(), name


def test_the_seed_fixes_the_weights_and_only_the_seed():
    first, same = hard_model(CONFIG, seed=1), hard_model(CONFIG, seed=1)
    assert all(map(torch.equal, first.parameters(), same.parameters()))
    assert deviation(hard_model(CONFIG, seed=2).wte.weight, first.wte.weight) > 0.1


def test_deviation_is_relative_to_the_largest_magnitude():
    assert deviation(torch.tensor([1.0, -256.0]), torch.tensor([0.0, -256.0])) == 1 / 256
