"""Inference in half precision says what float32 says, to the bits it has."""

import pytest
import torch

import cleangpt2 as cg

TEXT = "Once upon a time there was a little girl named Lily. She liked to play with her red ball."
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def exact():
    """The bundled model in float32."""
    return cg.load("story", device="cpu")


@pytest.mark.parametrize(
    ("dtype", "bound"), [("float64", 1e-9), ("float16", 5e-5), ("bfloat16", 5e-3)]
)
@torch.no_grad()
def test_the_next_tokens_distribution_is_that_of_float32(exact, dtype, bound):
    """The largest divergence of a position, in nats."""
    model, tokenizer = cg.load("story", device="cpu", dtype=dtype)
    assert model.dtype == getattr(torch, dtype)
    ids = torch.tensor(tokenizer.encode(TEXT))
    expected = exact[0](ids).double().log_softmax(dim=-1)
    logprobs = model(ids).double().log_softmax(dim=-1)
    divergence = (expected.exp() * (expected - logprobs)).sum(dim=-1)
    assert divergence.max() < bound
    assert torch.equal(logprobs.argmax(dim=-1), expected.argmax(dim=-1))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_a_greedy_story_is_that_of_float32(exact, dtype):
    settings = {"max_new_tokens": 24, "temperature": 0.0}
    expected = cg.generate(*exact, PROMPT, **settings)
    assert "little girl" in expected.text
    out = cg.generate(*cg.load("story", device="cpu", dtype=dtype), PROMPT, **settings)
    assert out.text == expected.text
    assert out.logprobs == pytest.approx(expected.logprobs, abs=0.1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sampled_stories_stay_stories(exact, dtype):
    """Eight of them: what half precision draws is as likely to float32 as its own draws are."""
    model, tokenizer = cg.load("story", device="cpu", dtype=dtype)
    settings = {"max_new_tokens": 30, "seed": 1, "num_samples": 8}

    def surprise(writer) -> float:
        """Mean nats a token to the float32 model."""
        outs = cg.generate(writer, tokenizer, PROMPT, **settings)
        rows = [tokenizer.encode(PROMPT) + list(out.ids) for out in outs]
        logprobs = [exact[0](row)[:-1].log_softmax(dim=-1) for row in rows]
        return (
            torch.cat(
                [
                    -lp.gather(1, torch.tensor(row)[1:, None])
                    for lp, row in zip(logprobs, rows, strict=True)
                ]
            )
            .mean()
            .item()
        )

    with torch.no_grad():
        assert surprise(model) < surprise(exact[0]) + 0.3
