"""Training that stops at document borders is training on each document alone."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cleangpt2.data.batches import Batches, pack
from cleangpt2.errors import ConfigError
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.training.forward import forward_pass
from cleangpt2.training.pretrain import pretrain
from cleangpt2.training.step import accumulate, summed_loss
from cleangpt2.training.validation import held_out_bits_per_byte
from tests.helpers import missing, run_python
from tests.model.hard_weights import hard_model
from tests.training.runs import CONFIG, MODEL, WITHOUT_DROPOUT

EOS = 0
SCALER = torch.amp.GradScaler("cpu", enabled=False)
TOKENS = np.random.default_rng(0).integers(7, size=2000).astype(np.uint16)
"""Documents of seven tokens on average, and now and then of one."""
BATCHES = Batches(TOKENS, B=8, T=16, seed=1)
WITHIN = dataclasses.replace(CONFIG, cross_documents=False)


def model_in_float64(**changes: int) -> GPT2:
    """Its attention is not flat, so that the mask matters."""
    return hard_model(dataclasses.replace(WITHOUT_DROPOUT, **changes)).train().double()


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def documents_alone(inputs, targets):
    """Each document's inputs and targets, from a plain loop over the tokens of each row."""
    parts = []
    for row in range(len(inputs)):
        for t in range(inputs.size(1)):
            if t == 0 or inputs[row, t] == EOS:
                parts.append(([], []))
            parts[-1][0].append(inputs[row, t].item())
            parts[-1][1].append(targets[row, t].item())
    return parts


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_loss_and_gradient_of_a_step_are_those_of_its_documents(micro_batches):
    model = model_in_float64()
    alone = documents_alone(*BATCHES(3))
    assert min(len(ids) for ids, _ in alone) == 1
    assert sum(len(ids) for ids, _ in alone) == 8 * 16  # every target counts
    expected = sum(
        F.cross_entropy(model(ids), torch.tensor(targets), reduction="sum")
        for ids, targets in alone
    ) / (8 * 16)
    expected.backward()
    by_documents = gradients(model)
    model.zero_grad()
    parts = [BATCHES(3, rows) for rows in BATCHES.share(micro_batches=micro_batches)]
    loss = accumulate(model, parts, precision="fp32", scaler=SCALER, border=EOS)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradients(model), by_documents, rtol=0, atol=1e-10)
    across = accumulate(model, parts, precision="fp32", scaler=SCALER)
    assert abs(across - loss) > 0.01 * loss


@torch.no_grad()
def test_packed_texts_have_the_loss_that_validation_gives_them_one_by_one():
    """Each text's first word is predicted, and its end, and nothing else: see `batches.pack`."""
    texts = ["One day a cat sat.", "", "The end", "A dog ran to the big red house and slept."]
    tokenizer = Tokenizer.train(texts, vocab_size=270)
    shape = dataclasses.replace(WITHOUT_DROPOUT, vocab_size=270, n_positions=128)
    model = GPT2(shape).double()
    row = torch.from_numpy(pack(texts, tokenizer).astype(np.int64))[None]
    nats = summed_loss(model, row[:, :-1], row[:, 1:], border=tokenizer.eos_id)
    n_bytes = sum(len(text.encode()) for text in texts)
    expected = held_out_bits_per_byte(model, tokenizer, texts) * n_bytes * math.log(2)
    assert nats.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 2e-2), ("fp16", 2e-3)])
def test_halves_are_near_it(precision, bound):
    model = model_in_float64().float()
    inputs, targets = BATCHES(0)
    exact = summed_loss(model, inputs, targets, border=EOS)
    half = summed_loss(model, inputs, targets, border=EOS, precision=precision)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=bound)


def test_recomputing_changes_nothing():
    model = GPT2(MODEL)  # with dropout
    found = []
    for recompute in (False, True):
        model.zero_grad()
        torch.manual_seed(3)
        with forward_pass(model, recompute=recompute, compile=False):
            summed_loss(model, *BATCHES(0), border=EOS).backward()
        found.append(gradients(model))
    assert torch.equal(*found)


COMPILED = """
import torch
from cleangpt2.training.forward import forward_pass
from cleangpt2.training.step import summed_loss
from tests.training.test_documents import BATCHES, EOS, gradients, model_in_float64

model = model_in_float64(n_layer=1).float()
found = []
for compile in (False, True):
    model.zero_grad()
    with forward_pass(model, recompute=False, compile=compile):
        for step in range(3):  # other borders each time, and nothing is compiled anew for them
            with torch.compiler.set_stance("fail_on_recompile" if compile and step else "default"):
                summed_loss(model, *BATCHES(step), border=EOS).backward()
    found.append(gradients(model))
print(((found[0] - found[1]).abs().max() / found[0].abs().max()).item())
"""


@pytest.mark.slow
def test_compiled_it_is_the_same():
    if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        missing("no C++ compiler")
    done = run_python("-c", COMPILED, env={"CLEANGPT2_CHECK_SHAPES": "0"}, timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5


# --- the setting --------------------------------------------------------------------------------


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


@pytest.mark.parametrize("cross_documents", [True, False])
def test_the_setting_decides_what_a_run_trains_on(tmp_path, cross_documents):
    config = dataclasses.replace(CONFIG, steps=2, cross_documents=cross_documents)
    begin = model_in_float64().float()
    pretrain(WITHOUT_DROPOUT, config, TOKENS, tmp_path / "run", start_from=begin)
    batch = Batches(TOKENS, B=config.batch_size, T=config.context, seed=config.seed)(0)
    expected = summed_loss(begin, *batch, border=None if cross_documents else EOS)
    other = summed_loss(begin, *batch, border=EOS if cross_documents else None)
    tokens = config.batch_size * config.context
    assert losses(tmp_path / "run")[0] == pytest.approx(expected.item() / tokens, rel=1e-4)
    assert abs(other - expected) > 0.003 * expected


def test_a_run_cannot_go_on_with_the_other(tmp_path):
    config = dataclasses.replace(CONFIG, steps=5)
    pretrain(WITHOUT_DROPOUT, config, TOKENS, tmp_path)
    with pytest.raises(ConfigError, match="cross_documents.*True.*False"):
        pretrain(WITHOUT_DROPOUT, dataclasses.replace(WITHIN, steps=9), TOKENS, tmp_path)


@pytest.mark.parametrize("eos", [None, 64, -1])
def test_documents_that_nothing_tells_apart_are_refused_before_anything_is_written(tmp_path, eos):
    model = dataclasses.replace(WITHOUT_DROPOUT, eos_token_id=eos)
    with pytest.raises(ConfigError, match=f"cross_documents is False, .* eos_token_id, {eos}, "):
        pretrain(model, WITHIN, TOKENS, tmp_path / "run")
    assert not (tmp_path / "run").exists()
