"""Fine-tuning beside transformers: its own loss with labels, on the same conversations."""

import pytest
import torch

from cleangpt2.data.records import read_records
from cleangpt2.model.config import GPT2Config
from cleangpt2.sft.batches import Batches
from cleangpt2.sft.config import SFTConfig
from cleangpt2.sft.examples import fit
from cleangpt2.tokenizer.chat import load_template
from cleangpt2.training.step import IGNORED, accumulate
from tests.model.hard_weights import hard_model
from tests.parity.twin import CONV1D, twin
from tests.stubs import small_tokenizer

T = 96


@pytest.fixture(scope="module")
def examples(shared_data):
    """Alpaca's first conversations, with bytes for tokens, or nearly so."""
    records = read_records(shared_data / "sft" / "alpaca_head_1805.jsonl.gz").records[:400]
    short = [r.messages for r in records if sum(len(m.content) for m in r.messages) < 90][:24]
    chat = load_template("plain", small_tokenizer())
    return fit(chat.encode_batch(short), context=T)


def theirs(model, examples):
    """Loss and gradients under our names, of all examples in one padded batch with labels."""
    other = twin(model)
    width = max(len(row.ids) for row in examples.rows)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for number, row in enumerate(examples.rows):
        n = len(row.ids)
        ids[number, :n] = torch.from_numpy(row.ids)
        labels[number, :n] = torch.where(
            torch.from_numpy(row.mask), torch.from_numpy(row.ids).long(), IGNORED
        )
    real = (torch.arange(width) < torch.tensor([[len(r.ids)] for r in examples.rows])).long()
    loss = other(input_ids=ids, attention_mask=real, labels=labels).loss
    loss.backward()
    named = {name.removeprefix("transformer."): p for name, p in other.named_parameters()}
    return loss.item(), {
        name: p.grad.t() if name.endswith(CONV1D) else p.grad for name, p in named.items()
    }


@pytest.mark.parametrize("packing", ["bfd", "pad"])
@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize("train_on", ["completion", "all"])
def test_loss_and_gradients_are_those_of_transformers_with_labels(
    examples, packing, micro_batches, train_on
):
    given = fit(examples.rows, context=T, train_on=train_on)
    shape = GPT2Config(
        vocab_size=small_tokenizer().vocab_size, n_positions=T + 1, n_embd=48, n_layer=2, n_head=4
    )
    model = hard_model(shape).double()
    made = Batches(
        given,
        SFTConfig(steps=1, batch_size=24, packing=packing, micro_batches=micro_batches),
    )
    assert made.steps_per_epoch == 1
    parts = [made(0, slots).part for slots in made.share(micro_batches=micro_batches)]
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    loss = accumulate(model, parts, precision="fp32", scaler=scaler)
    expected_loss, expected = theirs(model, given)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, parameter in model.named_parameters():
        largest = max(1.0, expected[name].abs().max().item())
        assert (parameter.grad - expected[name]).abs().max().item() < 1e-5 * largest, name
