"""What the model writes in the course of its training."""

from cleangpt2.completion import generate
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.tokenizer import Tokenizer


def unprompted(model: GPT2, tokenizer: Tokenizer) -> list[str]:
    """Three texts from the end-of-text token on, drawn with the same numbers every time.

    The sampler has random numbers of its own, so a run with samples ends as one without them.
    """
    samples = generate(
        model, tokenizer, "", num_samples=3, max_new_tokens=100, temperature=0.8, top_k=50, seed=1
    )
    return [sample.text for sample in samples]
