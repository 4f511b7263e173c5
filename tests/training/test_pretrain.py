import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch

from cleangpt2.errors import ConfigError, DataError, OutputError, TrainingError
from cleangpt2.training import checkpoint
from cleangpt2.training import pretrain as module
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.pretrain import pretrain
from tests.training.runs import CONFIG, MODEL, TOKENS, WITHOUT_DROPOUT, Killed, die_at, weights


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_learns_a_cycle(tmp_path, optimizer):
    config = PretrainConfig(
        steps=100, batch_size=4, context=16, warmup=10, optimizer=optimizer, lr=1e-2, muon_lr=1e-2
    )
    model = pretrain(WITHOUT_DROPOUT, config, TOKENS, tmp_path)
    ids = TOKENS[:17].astype(np.int64)
    assert (model(ids[:-1].tolist())[4:].argmax(-1) == torch.from_numpy(ids[1:])[4:]).all()
    assert not model.training


@pytest.mark.parametrize("died_in", [3, 7, 13, 19])
def test_a_run_that_died_ends_with_the_weights_of_one_that_did_not(tmp_path, monkeypatch, died_in):
    # Dropout is on in MODEL, so the random numbers have to come back too.
    whole = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, died_in)
        pretrain(MODEL, CONFIG, TOKENS, tmp_path / "died")
    torch.manual_seed(99)
    resumed = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "died")
    assert torch.equal(weights(whole), weights(resumed))
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "died")]
    assert logs[0] == logs[1]


def test_a_run_that_died_while_writing_a_checkpoint_goes_on_from_the_one_before(
    tmp_path, monkeypatch
):
    whole = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint.Path, "rename", lambda *_: (_ for _ in ()).throw(Killed))
        pretrain(MODEL, CONFIG, TOKENS, tmp_path / "died")
    assert [p.name for p in (tmp_path / "died/checkpoints").iterdir()] == [".partial-0000005"]
    resumed = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "died")
    assert torch.equal(weights(whole), weights(resumed))


def test_ctrl_c_saves_and_the_next_call_goes_on(tmp_path, monkeypatch):
    whole = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "whole")
    original, calls = module.clip, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="after step 8"):
        patch.setattr(module, "clip", interrupted)
        pretrain(MODEL, CONFIG, TOKENS, tmp_path / "stopped")
    assert checkpoint.newest(tmp_path / "stopped/checkpoints")["step"] == 8
    resumed = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "stopped")
    assert torch.equal(weights(whole), weights(resumed))


def test_a_longer_run_continues_a_shorter_one_that_has_not_begun_to_decay(tmp_path, monkeypatch):
    longer = dataclasses.replace(CONFIG, steps=40)
    straight = pretrain(MODEL, longer, TOKENS, tmp_path / "straight")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 12)
        pretrain(MODEL, CONFIG, TOKENS, tmp_path / "extended")
    extended = pretrain(MODEL, longer, TOKENS, tmp_path / "extended")
    assert torch.equal(weights(straight), weights(extended))


def test_a_run_in_its_decay_cannot_become_a_longer_one(tmp_path):
    pretrain(MODEL, CONFIG, TOKENS, tmp_path)
    longer = dataclasses.replace(CONFIG, steps=40)
    with pytest.raises(ConfigError, match="trained 20 steps.*steps 20 -> 40"):
        pretrain(MODEL, longer, TOKENS, tmp_path)
    # The refusal leaves the folder as it was.
    assert json.loads((tmp_path / "config.json").read_text())["training"]["steps"] == 20


def test_a_finished_run_is_refused_and_fresh_starts_anew(tmp_path):
    first = pretrain(MODEL, CONFIG, TOKENS, tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="finished after 20 steps.*--fresh"):
        pretrain(MODEL, CONFIG, TOKENS, tmp_path)
    other = dataclasses.replace(CONFIG, seed=2)
    with pytest.raises(ConfigError, match="seed was 1, now 2"):
        pretrain(MODEL, other, TOKENS, tmp_path)
    second = pretrain(MODEL, other, TOKENS, tmp_path, fresh=True)
    assert not torch.equal(weights(first), weights(second))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("content", ['{"model_type": "gpt2"}', '{"training": {}}', "[]", "{"])
def test_a_folder_of_something_else_is_refused_and_kept(tmp_path, content):
    for name in ("config.json", "metrics.jsonl", "model.safetensors"):
        (tmp_path / name).write_text(content)
    for fresh in (False, True):
        with pytest.raises(ConfigError, match="give another folder"):
            pretrain(MODEL, CONFIG, TOKENS, tmp_path, fresh=fresh)
    assert len(list(tmp_path.iterdir())) == 3


def test_fresh_removes_nothing_when_the_new_run_cannot_begin(tmp_path):
    pretrain(MODEL, CONFIG, TOKENS, tmp_path)
    with pytest.raises(DataError):
        pretrain(MODEL, CONFIG, TOKENS[:50], tmp_path, fresh=True)
    assert checkpoint.newest(tmp_path / "checkpoints")["step"] == 20


def test_a_run_without_a_checkpoint_does_not_bind_the_folder(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 2)
        pretrain(MODEL, CONFIG, TOKENS, tmp_path / "run")
    other = dataclasses.replace(CONFIG, lr=1e-3)
    mended = pretrain(MODEL, other, TOKENS, tmp_path / "run")
    straight = pretrain(MODEL, other, TOKENS, tmp_path / "straight")
    assert torch.equal(weights(mended), weights(straight))


@pytest.mark.parametrize(
    ("changes", "tokens", "error", "message"),
    [
        ({"context": 33}, TOKENS, ConfigError, "context 33 is longer than the model's 32"),
        ({}, TOKENS[:50], DataError, "50 tokens are too few"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, changes, tokens, error, message):
    with pytest.raises(error, match=message):
        pretrain(MODEL, dataclasses.replace(CONFIG, **changes), tokens, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write to"):
        pretrain(MODEL, CONFIG, TOKENS, tmp_path / "file" / "run")
