"""Shakespeare at a size of seconds."""

import dataclasses
import math

import pytest

import cleangpt2
from cleangpt2.errors import DataError
from cleangpt2.recipes import shakespeare
from cleangpt2.training.validation import held_out_bits_per_byte

VERSE = "Shall I compare thee to a summer's day? Thou art more lovely and more temperate. — ü\n"


def test_the_loss_is_that_of_the_model_it_leaves_on_the_last_tenth(tmp_path):
    data = tmp_path / "sonnet.txt"
    data.write_text(VERSE * 40, encoding="utf-8", newline="\n")
    config = dataclasses.replace(
        shakespeare.TRAINING["laptop"], steps=3, batch_size=2, eval_every=2
    )
    nats = shakespeare.train(data, tmp_path / "run", config=config)

    model, tokenizer = cleangpt2.load(tmp_path / "run" / "model", device="cpu")
    assert tokenizer.vocab_size == model.config.vocab_size == 257
    held_out = (VERSE * 40)[int(0.9 * 40 * len(VERSE)) :]
    bits = held_out_bits_per_byte(model, tokenizer, [held_out])
    n_bytes, n_characters = len(held_out.encode()), len(held_out)
    assert n_bytes > n_characters
    assert nats == pytest.approx(bits * math.log(2) * n_bytes / n_characters)
    assert nats < math.log(257) * n_bytes / n_characters  # better than any byte may come


def test_it_trains_on_the_rest(monkeypatch, tmp_path):
    data = tmp_path / "letters.txt"
    data.write_text("a" * 900 + "b" * 100, encoding="utf-8")
    seen = {}

    class Stop(Exception):
        pass

    def pretrain(_shape, _config, tokens, _folder, **_kwargs):
        seen["tokens"] = tokens.tolist()
        raise Stop

    monkeypatch.setattr(shakespeare, "pretrain", pretrain)
    with pytest.raises(Stop):
        shakespeare.train(data, tmp_path / "run")
    first, *letters, last = seen["tokens"]
    assert first == last == 256
    assert len(letters) == 900
    assert len(set(letters)) == 1


def test_a_text_too_short_to_hold_something_out_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("To be.   ", encoding="utf-8")
    with pytest.raises(DataError, match=r"short\.txt is too short to hold a tenth out"):
        shakespeare.train(tmp_path / "short.txt", tmp_path / "run")


def test_flags_change_the_settings(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(shakespeare, "train", lambda *_args, **kwargs: seen.update(kwargs) or 0.0)
    flags = ["--data", "x", "--optimizer", "adamw", "--steps", "7", "--device", "cpu"]
    shakespeare.main(flags)
    config = seen["config"]
    assert (config.steps, config.optimizer, config.schedule) == (7, "adamw", "cosine")
    assert (config.lr, config.beta2, config.batch_size) == (1e-3, 0.99, 12)
