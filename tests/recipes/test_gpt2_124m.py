"""The large recipe as a rehearsal: two steps of a small shape on a small corpus."""

import dataclasses
import json
import math

import pytest
import torch.nn.functional as F

import cleangpt2
from cleangpt2.data.corpus import Corpus
from cleangpt2.errors import DataError
from cleangpt2.recipes import gpt2_124m
from cleangpt2.training.shape import new_model

TEXT = "once upon a time there was a little dog who liked to play in the park"
SMALL = dataclasses.replace(
    gpt2_124m.TRAINING, steps=2, batch_size=4, micro_batches=2, context=32, precision="fp32",
    compile=False, eval_every=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A prepared folder with a validation split, made by the recipe's own function."""
    folder = tmp_path_factory.mktemp("corpus")
    words = TEXT.split(" ")
    with open(folder / "texts.jsonl", "w", encoding="utf-8") as file:
        for i in range(3000):
            text = " ".join(words[i % 9 :] + words[: i % 7]) + f" {i}."
            file.write(json.dumps({"text": text}) + "\n")
    gpt2_124m.prepare_corpus([str(folder / "texts.jsonl")], folder / "tokens", "story", workers=1)
    return folder / "tokens"


def test_two_steps_leave_a_model_and_its_loss_on_held_out_text(corpus, tmp_path):
    tokenizer = Corpus(corpus).tokenizer()
    shape = new_model(tokenizer, n_layer=1, n_head=2, n_embd=16, n_positions=32)
    nats = gpt2_124m.train(corpus, tmp_path / "run", config=SMALL, shape=shape)

    model, _ = cleangpt2.load(tmp_path / "run" / "model", device="cpu")
    row = Corpus(corpus).validation
    assert len(row) > 32
    losses = []
    for start in range(0, len(row) - 32, 32):
        ids = row[start : start + 33].astype(int).tolist()
        losses.append(F.cross_entropy(model(ids[:-1]), model.check(ids[1:])).item())
    assert nats == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert nats == pytest.approx(math.log(4096), rel=0.05)  # two steps teach nothing
    rows = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum("bits_per_byte" in json.loads(row) for row in rows) == 2


def test_a_corpus_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"data prepare"):
        gpt2_124m.train(tmp_path / "none", tmp_path / "run")


def test_the_schedule_is_that_of_llm_c():
    config = gpt2_124m.TRAINING
    assert config.tokens == 18_865 * 524_288
    assert config.lr * config.lr_scale(699) == pytest.approx(6e-4)
    assert config.lr * config.lr_scale(0) == pytest.approx(6e-4 / 700)
    halfway = 700 + (config.steps - 700) // 2
    assert config.lr * config.lr_scale(halfway) == pytest.approx(3e-4, rel=1e-3)
    assert config.lr * config.lr_scale(config.steps - 1) < 1e-9


def test_only_data_prepares_and_stops(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(gpt2_124m, "prepare_corpus", lambda *args: asked.append(args))
    gpt2_124m.main(["--data", str(tmp_path), "--corpus", "fineweb-edu", "--only-data"])
    assert asked == [(["hf:HuggingFaceFW/fineweb-edu:sample-10BT"], tmp_path)]
