"""A run that goes on with other settings: only on purpose, and told for ever after."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from cleangpt2.errors import ConfigError, TrainingError
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training import checkpoint
from cleangpt2.training.pretrain import pretrain
from tests.training.runs import CONFIG, MODEL, TOKENS, WITHOUT_DROPOUT, Killed, die_at, weights


def changed(config=CONFIG, **changes):
    return dataclasses.replace(config, **changes)


def died(folder, monkeypatch, *, model=MODEL, config=CONFIG, step=13, **more):
    """A run that died, with a checkpoint of step 10 unless said otherwise."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, step)
        pretrain(model, config, TOKENS, folder, **more)


def settings(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def notes(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "changed_settings" in row]


CHANGES = {
    "lr": 1e-4, "weight_decay": 0.9, "beta1": 0.5, "beta2": 0.5, "muon_lr": 1e-4,
    "batch_size": 2, "context": 8, "clip": 0.1, "warmup": 30, "seed": 2, "precision": "bf16",
    "spike": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_changes_on_purpose_only_and_takes_effect(tmp_path, monkeypatch, name):
    same = pretrain(WITHOUT_DROPOUT, CONFIG, TOKENS, tmp_path / "same")
    died(tmp_path / "run", monkeypatch, model=WITHOUT_DROPOUT)
    other = changed(**{name: CHANGES[name]})
    told = f"{name} was {getattr(CONFIG, name)}, now {CHANGES[name]}"
    with pytest.raises(ConfigError, match=f"other settings .*{told}.*--change-settings"):
        pretrain(WITHOUT_DROPOUT, other, TOKENS, tmp_path / "run")
    assert "changes" not in settings(tmp_path / "run")
    model = pretrain(WITHOUT_DROPOUT, other, TOKENS, tmp_path / "run", change_settings=True)
    what = f"{name} {getattr(CONFIG, name)} -> {CHANGES[name]}"
    assert settings(tmp_path / "run")["changes"] == {"after step 10": what}
    assert notes(tmp_path / "run") == [{"step": 9, "changed_settings": what}]
    if name != "spike":
        assert not torch.equal(weights(model), weights(same))


def test_the_history_stays_when_it_dies_again_or_is_changed_again(tmp_path, monkeypatch):
    died(tmp_path, monkeypatch, step=7)
    slower = changed(lr=1e-3)
    died(tmp_path, monkeypatch, config=slower, step=2, change_settings=True)  # saved nothing more
    died(tmp_path, monkeypatch, config=slower, step=9)
    pretrain(MODEL, changed(slower, clip=0.5), TOKENS, tmp_path, change_settings=True)
    assert settings(tmp_path)["changes"] == {
        "after step 5": "lr 0.005 -> 0.001",
        "after step 10": "clip 1.0 -> 0.5",
    }
    assert [row["step"] for row in notes(tmp_path)] == [4, 9]


def test_a_change_of_what_leaves_the_weights_alone_needs_no_purpose_and_is_told(
    tmp_path, monkeypatch
):
    died(tmp_path, monkeypatch)
    pretrain(MODEL, changed(save_every=7, export_every=3), TOKENS, tmp_path)
    told = {"after step 10": "save_every 5 -> 7, export_every None -> 3"}
    assert settings(tmp_path)["changes"] == told


def test_a_learning_rate_of_the_past_changes_on_purpose(tmp_path, monkeypatch):
    died(tmp_path, monkeypatch)
    longer = changed(steps=30, schedule="cosine")
    with pytest.raises(ConfigError, match=r"\(steps 20 -> 30, schedule wsd -> cosine\).*--change"):
        pretrain(MODEL, longer, TOKENS, tmp_path)
    pretrain(MODEL, longer, TOKENS, tmp_path, change_settings=True)
    assert checkpoint.newest(tmp_path / "checkpoints")["step"] == 30


def test_a_finished_run_goes_on_when_it_is_given_more_steps(tmp_path):
    pretrain(MODEL, CONFIG, TOKENS, tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(TrainingError, match="is finished after 20 steps"):
        pretrain(MODEL, changed(lr=1e-4), TOKENS, tmp_path, change_settings=True)
    pretrain(MODEL, changed(steps=30), TOKENS, tmp_path, change_settings=True)
    assert checkpoint.newest(tmp_path / "checkpoints")["step"] == 30


def test_dropout_is_a_setting_and_a_shape_is_none(tmp_path, monkeypatch):
    died(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="attn_pdrop was 0.1, now 0.0.*--change-settings"):
        pretrain(WITHOUT_DROPOUT, CONFIG, TOKENS, tmp_path)
    for changes, told in (
        ({"n_layer": 3}, "n_layer was 2, now 3"),
        ({"n_embd": 16, "n_head": 1}, "n_embd was 32, now 16; n_head was 2, now 1"),
        ({"vocab_size": 70}, "vocab_size was 64, now 70"),
    ):
        other = dataclasses.replace(MODEL, **changes)
        with pytest.raises(ConfigError, match=f"cannot go on like this .*{told}") as error:
            pretrain(other, CONFIG, TOKENS, tmp_path, change_settings=True)
        assert "\n" not in str(error.value)
    pretrain(WITHOUT_DROPOUT, CONFIG, TOKENS, tmp_path, change_settings=True)
    assert settings(tmp_path)["model"]["attn_pdrop"] == 0.0


def test_the_state_of_one_optimizer_is_none_of_another(tmp_path, monkeypatch):
    died(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="optimizer was 'muon', now 'adamw'.*--from-model"):
        pretrain(MODEL, changed(optimizer="adamw"), TOKENS, tmp_path, change_settings=True)


@pytest.mark.parametrize(("before", "after"), [("fp32", "fp16"), ("fp16", "fp32")])
def test_the_loss_is_scaled_from_where_it_is_needed(tmp_path, monkeypatch, before, after):
    died(tmp_path, monkeypatch, config=changed(precision=before))
    pretrain(MODEL, changed(precision=after), TOKENS, tmp_path, change_settings=True)


def test_other_data_are_noticed(tmp_path, monkeypatch):
    died(tmp_path, monkeypatch)
    other = np.roll(TOKENS, 1)
    with pytest.raises(ConfigError, match="data was 2560 tokens, .*, now 2560 tokens, .*--change"):
        pretrain(MODEL, CONFIG, other, tmp_path)
    pretrain(MODEL, CONFIG, other, tmp_path, change_settings=True)
    assert settings(tmp_path)["changes"]["after step 10"].startswith("data 2560 tokens, ")


def test_a_run_of_a_version_that_noted_no_data_goes_on(tmp_path, monkeypatch):
    died(tmp_path, monkeypatch)
    content = settings(tmp_path)
    del content["data"], content["training"]["export_every"]
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    pretrain(MODEL, CONFIG, TOKENS, tmp_path)
    assert settings(tmp_path)["data"].startswith("2560 tokens")


def test_weights_to_begin_with_belong_to_the_run(tmp_path, monkeypatch):
    models = [GPT2(MODEL), GPT2(MODEL)]
    died(tmp_path, monkeypatch, start_from=models[0])
    for other, told in (
        (models[1], r"a model's \(\w{16}\) weights, now a model's \(\w{16}\)"),
        (None, r"a model's \(\w{16}\) weights, now newly drawn"),
    ):
        with pytest.raises(ConfigError, match=f"it began with {told}"):
            pretrain(MODEL, CONFIG, TOKENS, tmp_path, start_from=other, change_settings=True)
    whole = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "whole", start_from=models[0])
    resumed = pretrain(MODEL, CONFIG, TOKENS, tmp_path, start_from=models[0])
    assert torch.equal(weights(whole), weights(resumed))


def test_weights_of_another_shape_are_no_beginning(tmp_path):
    other = GPT2(dataclasses.replace(MODEL, n_layer=1))
    with pytest.raises(ConfigError, match="the model to start from has n_layer 1, not 2"):
        pretrain(MODEL, CONFIG, TOKENS, tmp_path / "run", start_from=other)
    assert not (tmp_path / "run").exists()
