import math

import pytest
import torch

from cleangpt2.sft.evaluation import Evaluation, answer, answer_figures
from cleangpt2.sft.examples import fit
from cleangpt2.sft.sft import LOSS
from cleangpt2.tokenizer.chat import Message, load_template
from tests.sft.lessons import encoded, model, some
from tests.stubs import constant_model, random_model, small_tokenizer

TOKENIZER = small_tokenizer()
CHAT = load_template("alpaca", TOKENIZER)
PROMPTS = [[Message("user", text)] for text in ("the dog", "a girl", "the sun")]


@pytest.mark.parametrize("B", [1, 3, 50])
def test_the_figures_are_those_of_each_example_alone(B):
    made, conversations = model().double(), some(7)
    nats, right, count = 0.0, 0, 0
    for example in conversations:
        logprobs = made(example.ids[:-1].tolist()).log_softmax(dim=-1)
        for t, id in enumerate(example.ids[1:].tolist()):
            if example.mask[t + 1]:
                nats, count = nats - logprobs[t, id].item(), count + 1
                right += int(logprobs[t].argmax()) == id
    figures = answer_figures(made, fit(conversations, context=32), B=B)
    assert figures[LOSS] == pytest.approx(nats / count, rel=1e-6)
    assert figures["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-6)
    assert figures["token_accuracy"] == right / count


def test_what_is_always_said_is_always_right():
    logits = [0.0] * 8
    logits[5] = 30.0
    figures = answer_figures(constant_model(logits), fit([encoded([1], [5, 5, 6])], context=8))
    assert figures["token_accuracy"] == pytest.approx(2 / 3)


def test_measuring_leaves_the_model_in_its_mode_and_without_dropout():
    made = model(resid_pdrop=0.5).train()
    examples = fit(some(3), context=32)
    assert answer_figures(made, examples) == answer_figures(made, examples)
    assert made.training


def test_answers_depend_on_the_model_and_the_prompt_alone():
    made = random_model(TOKENIZER.vocab_size, n_positions=256)
    together = answer(made, CHAT, PROMPTS, 12)
    alone = [answer(made, CHAT, [prompt], 12)[0] for prompt in PROMPTS]
    assert together == alone
    assert all(len(given.ids) <= 12 for given in together)


@pytest.mark.parametrize("stops", [True, False])
def test_a_stop_is_counted_and_its_token_is_no_part_of_the_answer(stops):
    logits = torch.zeros(TOKENIZER.vocab_size)
    logits[CHAT.end_id if stops else 40] = 50.0
    always = constant_model(logits.tolist(), n_positions=256)
    evaluation = Evaluation(base=always, chat=CHAT, held_out=None, prompts=PROMPTS, max_answer=5)
    figures, rows = evaluation.sample(always)
    assert figures == {"stop_rate": float(stops), "answer_tokens": 0 if stops else 5}
    assert [row["text"] for row in rows] == ["" if stops else TOKENIZER.decode([40] * 5)] * 3


def test_the_base_answers_beside_the_model_from_the_same_numbers():
    base, other = (random_model(TOKENIZER.vocab_size, 256, seed=seed) for seed in (3, 4))
    evaluation = Evaluation(base=base, chat=CHAT, held_out=None, prompts=PROMPTS, max_answer=8)
    for row in evaluation.sample(base)[1]:
        assert row["text"] == row["base"]
        assert row["prompt"].endswith("### Response:")
    assert any(row["text"] != row["base"] for row in evaluation.sample(other)[1])


def test_forgetting_is_measured_on_texts():
    made = random_model(TOKENIZER.vocab_size, 256)
    evaluation = Evaluation(
        base=made, chat=CHAT, held_out=None, prompts=[], texts=["the dog was happy"]
    )
    assert evaluation.validate(made).keys() == {"bits_per_byte"}
    assert evaluation.sample(made) == ({}, [])
