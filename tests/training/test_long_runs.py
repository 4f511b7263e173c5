"""What a run does by itself while nobody looks: skip, scale, stop early, keep the best, sample."""

import dataclasses
import functools
import json
import math

import numpy as np
import pytest
import torch

from cleangpt2.errors import CheckpointError, ConfigError, OutputError, TrainingError
from cleangpt2.training import checkpoint
from cleangpt2.training import pretrain as module
from cleangpt2.training.pretrain import pretrain
from tests.training.runs import CONFIG, MODEL, TOKENS, WITHOUT_DROPOUT, Killed, die_at, weights


def changed(**changes):
    return dataclasses.replace(CONFIG, **changes)


def rows(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def spoil(monkeypatch, steps, loss=math.nan, gradient=math.nan):
    """Give these steps a loss and gradients of this size."""
    original, calls = module.accumulate, []

    def spoilt(replica, parts, **settings):
        calls.append(1)
        usual = original(replica, parts, **settings)
        if len(calls) - 1 not in steps:
            return usual
        for parameter in replica.model.parameters():
            parameter.grad.mul_(gradient)
        return loss

    monkeypatch.setattr(module, "accumulate", spoilt)


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (2.0, math.inf), (90.0, 1.0)])
def test_a_bad_step_leaves_no_trace_in_the_weights(tmp_path, monkeypatch, loss, gradient):
    before = pretrain(MODEL, changed(steps=4, decay=0.0), TOKENS, tmp_path / "before")
    spoil(monkeypatch, {4}, loss, gradient)
    after = pretrain(MODEL, changed(steps=5, decay=0.0), TOKENS, tmp_path / "after")
    assert torch.equal(weights(before), weights(after))
    (skipped,) = [row for row in rows(tmp_path / "after") if "skipped" in row]
    assert skipped["step"] == 4 and skipped["skipped"].startswith(f"loss {loss:.4g}")


def test_training_goes_on_after_a_bad_step_even_from_a_checkpoint(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        spoil(patch, {3, 4})
        whole = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        spoil(patch, {3, 4})
        die_at(patch, 7)
        pretrain(MODEL, CONFIG, TOKENS, tmp_path / "died")
    saved = checkpoint.newest(tmp_path / "died/checkpoints")
    assert (saved["step"], saved["guard"]["in_a_row"], saved["guard"]["skipped"]) == (5, 2, 2)
    resumed = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "died")
    assert torch.equal(weights(whole), weights(resumed)) and weights(whole).isfinite().all()
    assert len([row for row in rows(tmp_path / "died") if "loss" in row]) == 18
    last = [checkpoint.newest(tmp_path / name / "checkpoints") for name in ("whole", "died")]
    assert last[0]["guard"] == last[1]["guard"] and last[1]["guard"]["skipped"] == 2


def test_too_many_bad_steps_in_a_row_end_the_run(tmp_path, monkeypatch):
    spoil(monkeypatch, {2, 4, 7, 8, 9})
    with pytest.raises(TrainingError, match="3 steps in a row .* step 9 with loss nan .*lower lr"):
        pretrain(MODEL, changed(max_skips=3), TOKENS, tmp_path)
    with np.load(tmp_path / "skipped.npz") as saved:
        assert saved["steps"].tolist() == [7, 8, 9] and saved["ids"].shape == (3, 4, 17)
    spoil(monkeypatch, set())
    pretrain(MODEL, changed(seed=2), TOKENS, tmp_path, fresh=True)
    assert not (tmp_path / "skipped.npz").exists()


def test_fp16_finds_its_scale_and_comes_back_with_it(tmp_path, monkeypatch):
    config = changed(precision="fp16")
    too_large = functools.partial(torch.amp.GradScaler, init_scale=2.0**22)
    monkeypatch.setattr(torch.amp, "GradScaler", too_large)
    whole = pretrain(MODEL, config, TOKENS, tmp_path / "whole")
    skipped = [row for row in rows(tmp_path / "whole") if "skipped" in row]
    assert skipped and all("gradient norm" in row["skipped"] for row in skipped)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 13)
        pretrain(MODEL, config, TOKENS, tmp_path / "died")
    saved = checkpoint.newest(tmp_path / "died/checkpoints")
    assert saved["scaler"]["scale"] == 2.0 ** (22 - len(skipped))
    resumed = pretrain(MODEL, config, TOKENS, tmp_path / "died")
    assert torch.equal(weights(whole), weights(resumed))
    assert rows(tmp_path / "whole") == rows(tmp_path / "died")


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_fp16_learns_as_fp32_does(tmp_path, optimizer):
    losses = {}
    for precision in ("fp32", "fp16"):
        config = changed(precision=precision, optimizer=optimizer)
        pretrain(WITHOUT_DROPOUT, config, TOKENS, tmp_path / precision)
        losses[precision] = [row["loss"] for row in rows(tmp_path / precision)]
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=2e-2)
    assert losses["fp16"] != losses["fp32"]


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_fills_ends_the_run_and_keeps_what_was_saved(tmp_path, monkeypatch, background):
    config = changed(background_saves=background)
    whole = pretrain(MODEL, config, TOKENS, tmp_path / "whole")
    write, calls = checkpoint.os.fsync, []

    def fsync(number):
        calls.append(number)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return write(number)

    def begin(model):
        """Called after ten steps, when one checkpoint is written and three are to come."""
        monkeypatch.setattr(checkpoint.os, "fsync", fsync)
        return 1.0

    with pytest.raises(OutputError, match="No space left"):
        pretrain(MODEL, config, TOKENS, tmp_path / "full", validate=begin)
    monkeypatch.undo()
    assert checkpoint.newest(tmp_path / "full/checkpoints")["step"] == 15
    resumed = pretrain(MODEL, config, TOKENS, tmp_path / "full")
    assert torch.equal(weights(whole), weights(resumed))


def test_a_failure_in_the_background_ends_the_run_before_the_next_checkpoint(tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OutputError("no room")

    monkeypatch.setattr(checkpoint, "save", full_disk)
    with pytest.raises(OutputError, match="no room"):
        pretrain(MODEL, changed(save_every=10, background_saves=True), TOKENS, tmp_path)
    assert 9 <= rows(tmp_path)[-1]["step"] < 19


def test_checkpoints_of_the_background_are_those_of_the_front(tmp_path, monkeypatch):
    front = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "front")
    config = changed(background_saves=True)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 13)
        pretrain(MODEL, config, TOKENS, tmp_path / "died")
    assert checkpoint.newest(tmp_path / "died/checkpoints")["step"] == 10
    resumed = pretrain(MODEL, config, TOKENS, tmp_path / "died")
    assert torch.equal(weights(front), weights(resumed))


def measuring(values):
    """Measurements in this order, and then of 9 bits."""
    left = iter(values)
    return lambda _model: next(left, 9.0)


def test_it_stops_early_and_is_finished_then(tmp_path):
    config = changed(eval_every=2, patience=3)
    model = pretrain(MODEL, config, TOKENS, tmp_path, validate=measuring([3, 2, 2.5, 2, 2.1]))
    assert checkpoint.newest(tmp_path / "checkpoints")["step"] == 10
    assert rows(tmp_path)[-1] == {"step": 9, "stopped_early": "no better than after step 4"}
    again = pretrain(MODEL, config, TOKENS, tmp_path, validate=measuring([]))
    assert torch.equal(weights(model), weights(again))  # as if killed before its model was written
    (tmp_path / "model").mkdir()
    with pytest.raises(TrainingError, match="finished after 10 steps"):
        pretrain(MODEL, config, TOKENS, tmp_path, validate=measuring([]))
    more = pretrain(MODEL, changed(eval_every=2), TOKENS, tmp_path, validate=measuring([]))
    straight = pretrain(MODEL, changed(eval_every=2), TOKENS, tmp_path / "straight")
    assert torch.equal(weights(more), weights(straight))


def test_the_best_checkpoint_stays_and_gives_the_model(tmp_path):
    config = changed(eval_every=3, keep=1, keep_best=True)
    seen, measured = [], measuring([3.0, 2.0, 2.5, 2.0, 2.1, 2.2, 2.3])

    def validate(model):
        seen.append(weights(model))
        return measured(model)

    model = pretrain(MODEL, config, TOKENS, tmp_path, validate=validate)
    assert torch.equal(weights(model), seen[1]) and not torch.equal(seen[1], seen[6])
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-0000006", "step-0000020"]
    (tmp_path / "checkpoints/step-0000006" / checkpoint.STATE).write_bytes(b"")
    with pytest.raises(CheckpointError, match="of step 6 .* is damaged or gone"):
        pretrain(MODEL, config, TOKENS, tmp_path, validate=validate)


@pytest.mark.parametrize("changes", [{"patience": 2}, {"keep_best": True}])
def test_without_measurements_there_is_no_best(tmp_path, changes):
    with pytest.raises(ConfigError, match="nothing to measure with: give validation"):
        pretrain(MODEL, changed(**changes), TOKENS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_samples_come_on_schedule_once_each_and_change_nothing(tmp_path, monkeypatch):
    plain = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "plain")
    config = changed(sample_every=6)

    def sample(model):
        return [f"{weights(model).sum():.6f}", "another"]

    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 14)
        pretrain(MODEL, config, TOKENS, tmp_path / "run", sample=sample)
    model = pretrain(MODEL, config, TOKENS, tmp_path / "run", sample=sample)
    assert torch.equal(weights(plain), weights(model))
    samples = rows(tmp_path / "run", "samples.jsonl")
    assert [row["step"] for row in samples] == [5, 5, 11, 11, 17, 17, 19, 19]
    assert samples[-2]["text"] == f"{weights(model).sum():.6f}"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schedule": "cosine"}, "schedule wsd -> cosine"),
        ({"steps": 12}, "steps 20 -> 12"),
        ({"decay": 1.0, "final_lr": 0.5}, "decay 0.3 -> 1.0, final_lr 0.0 -> 0.5"),
    ],
)
def test_a_past_of_another_learning_rate_is_refused(tmp_path, monkeypatch, changes, named):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 14)
        pretrain(MODEL, CONFIG, TOKENS, tmp_path)
    with pytest.raises(ConfigError, match="has trained 10 steps, .* another learning") as error:
        pretrain(MODEL, changed(**changes), TOKENS, tmp_path)
    assert f"({named})" in str(error.value)


def test_how_far_the_rate_will_fall_may_still_change_before_it_falls(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 12)
        pretrain(MODEL, CONFIG, TOKENS, tmp_path / "run")
    resumed = pretrain(MODEL, changed(final_lr=0.5), TOKENS, tmp_path / "run")
    straight = pretrain(MODEL, changed(final_lr=0.5), TOKENS, tmp_path / "straight")
    assert torch.equal(weights(resumed), weights(straight))


def test_a_run_goes_on_in_other_micro_batches(tmp_path, monkeypatch):
    whole = pretrain(WITHOUT_DROPOUT, CONFIG, TOKENS, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 7)
        pretrain(WITHOUT_DROPOUT, CONFIG, TOKENS, tmp_path / "run")
    resumed = pretrain(WITHOUT_DROPOUT, changed(micro_batches=4), TOKENS, tmp_path / "run")
    logs = [rows(tmp_path / name) for name in ("whole", "run")]
    losses = [[row["loss"] for row in log if "loss" in row] for log in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=1e-3)
