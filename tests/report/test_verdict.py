import dataclasses

import pytest

from cleangpt2.model.config import GPT2Config, size
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.report.folder import read_run
from cleangpt2.report.verdict import facts, parameters, sentence
from tests.report.reading import SETTINGS, make_run


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_inner": 20}, {"tie_word_embeddings": False}, {"n_layer": 1, "n_positions": 5}],
)
def test_parameters_are_counted_as_the_model_counts_them(changes):
    config = GPT2Config(vocab_size=30, n_positions=8, n_embd=16, n_layer=3, n_head=2)
    config = dataclasses.replace(config, **changes)
    model = GPT2(config)
    assert parameters(config.to_dict()) == sum(p.numel() for p in model.parameters())


def test_parameters_of_the_published_size():
    assert parameters(size("gpt2-xl").to_dict()) == 1_557_611_200


def test_a_finished_run_in_one_sentence(tmp_path):
    rows = [{"step": step, "loss": 4.0 if step < 50 else 2.0} for step in range(100)]
    rows.append({"step": 99, "bits_per_byte": 1.25})
    speed = [{"step": 49, "seconds": 60.0}, {"step": 99, "seconds": 65.5}]
    run = read_run(make_run(tmp_path, rows, speed=speed))
    assert sentence(run) == (
        "A model of 2.29 thousand parameters was trained on 6,400 tokens (100 steps) in "
        "2 min 5 s: training loss 2 (mean of the last 9), 1.25 bits per byte on held-out text."
    )


def test_how_fast_it_was_is_told_by_the_middle_of_the_run(tmp_path):
    rates = [(100, 0.1), (900, 0.9), (1234.6, 0.38)]
    speed = [
        {"step": step, "seconds": 0.75, "tokens_per_s": rate, "peak_share": share}
        for step, (rate, share) in enumerate(rates)
    ]
    run = read_run(make_run(tmp_path, [{"step": 2, "loss": 4.0}], speed=speed))
    assert "in 2.2 s (900 tokens a second, 38% of the machine's peak): training" in sentence(run)
    del speed[0]["peak_share"], speed[1]["peak_share"], speed[2]["peak_share"]
    run = read_run(make_run(tmp_path, [{"step": 2, "loss": 4.0}], speed=speed))
    assert "in 2.2 s (900 tokens a second): training" in sentence(run)


def test_an_unfinished_run_says_so(tmp_path):
    run = read_run(make_run(tmp_path, [{"step": 0, "loss": 4.0}, {"step": 1, "loss": 3.0}]))
    assert sentence(run) == (
        "A model of 2.29 thousand parameters was trained on 128 tokens so far (2 of 100 steps): "
        "training loss 3.5 (mean of the last 2)."
    )


def test_a_run_that_stopped_early_is_over(tmp_path):
    rows = [{"step": 0, "loss": 4.0}, {"step": 0, "stopped_early": "no better since step 0"}]
    run = read_run(make_run(tmp_path, rows))
    assert "(1 of 100 steps, stopped early)" in sentence(run)
    assert "so far" not in sentence(run)


def test_a_run_that_went_on_after_an_early_stop_is_not_over(tmp_path):
    rows = [{"step": 0, "stopped_early": "no better"}, {"step": 1, "loss": 4.0}]
    assert not facts(read_run(make_run(tmp_path, rows))).is_over


@pytest.mark.parametrize("settings", [{}, [], {"training": 3, "model": None},
    {"training": {"steps": "x", "batch_size": -1, "context": 2.5}, "model": {"n_layer": True}},
])  # fmt: skip
def test_settings_of_another_kind_only_shorten_the_sentence(tmp_path, settings):
    run = read_run(make_run(tmp_path, [{"step": 0, "loss": 4.0}], settings=settings))
    assert sentence(run) == "A model was trained (1 step): training loss 4 (mean of the last 1)."


def test_a_run_without_a_step_is_no_error(tmp_path):
    assert sentence(read_run(make_run(tmp_path, []))) == "No step of this run is logged yet."


def test_a_loss_that_was_never_finite_is_left_out(tmp_path):
    run = read_run(make_run(tmp_path, ['{"step": 0, "loss": NaN}'], settings=SETTINGS))
    assert "loss" not in sentence(run)
