"""How well a model answers: on examples that it was not trained on, and in its own words.

validation_loss   nats a target token of held-out examples, and its perplexity
token_accuracy    share of targets that the model finds likeliest
stop_rate         share of sampled answers that end by themselves; answer_tokens, their length
bits_per_byte     on text of the kind it was pretrained on: what it forgets
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cleangpt2.metrics.likelihood import perplexity
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.decode import Decoding
from cleangpt2.sft.examples import Examples
from cleangpt2.sft.packing import Batch, lay_out
from cleangpt2.sft.sft import LOSS
from cleangpt2.tokenizer.chat import ChatTemplate, Message
from cleangpt2.training.runtime import ALONE, Runtime
from cleangpt2.training.step import IGNORED
from cleangpt2.training.validation import held_out_bits_per_byte

SHOWN = 8
"""Prompts whose answers are kept in samples.jsonl."""
TEMPERATURE, SEED = 0.7, 1
_LOGITS = 1 << 24  # numbers of them at a time


@torch.inference_mode()
def answer_figures(
    model: GPT2, examples: Examples, *, B: int = 8, runtime: Runtime = ALONE
) -> dict[str, float]:
    """Loss, perplexity and token accuracy over all targets of some examples.

    Args:
        B: Examples that are computed at once.
        runtime: Its processes share the work, and all get the result.
    """
    by_length = [examples.rows[i] for i in np.argsort(examples.lengths, kind="stable")]
    nats, right, count = 0.0, 0, 0
    with model.evaluating():
        # Of a sharded model all processes compute a batch at the same time, an empty one if none
        # is left.
        for first in range(0, len(by_length), B * runtime.world_size):
            mine = first + B * runtime.rank
            sums = _sums(model, lay_out([[row] for row in by_length[mine : mine + B]] or [[]]))
            nats, right, count = nats + sums[0], right + sums[1], count + sums[2]
    nats, right, count = runtime.sum(nats), runtime.sum(right), runtime.sum(count)
    return {
        LOSS: nats / count,
        "perplexity": perplexity(nats, int(count)),
        "token_accuracy": right / count,
    }


def _sums(model: GPT2, batch: Batch) -> tuple[float, int, int]:
    """Nats, targets that were likeliest, and targets."""
    hidden = model.hidden(model.check(batch.inputs))
    is_target = (batch.targets != IGNORED).to(hidden.device)
    hidden, targets = hidden[is_target], batch.targets.to(hidden.device)[is_target]
    nats, right = 0.0, 0
    for part, wanted in _chunks(hidden, targets, max(1, _LOGITS // model.config.vocab_size)):
        logits = model.logits(part).float()
        nats += F.cross_entropy(logits, wanted, reduction="sum").item()
        right += int((logits.argmax(dim=1) == wanted).sum())
    return nats, right, len(targets)


def _chunks(hidden: torch.Tensor, targets: torch.Tensor, size: int) -> Any:
    return zip(hidden.split(size), targets.split(size), strict=True) if len(targets) else ()


@dataclass(kw_only=True)
class Evaluation:
    """What is measured in the course of a run, always on the same examples and prompts."""

    base: GPT2
    """The model as it was, whose answers stand beside the new ones."""
    chat: ChatTemplate
    held_out: Examples | None
    prompts: Sequence[Sequence[Message]]
    """Conversations that end before an answer."""
    texts: list[str] = field(default_factory=list)
    """Pretraining texts."""
    max_answer: int = 128
    """Tokens after which an answer that has not stopped is cut."""
    runtime: Runtime = ALONE
    _before: list[str] | None = None

    def validate(self, model: GPT2) -> dict[str, float]:
        """Figures about held-out examples and pretraining texts."""
        figures = {}
        if self.held_out is not None:
            figures = answer_figures(model, self.held_out, runtime=self.runtime)
        if self.texts:
            figures["bits_per_byte"] = held_out_bits_per_byte(
                model, self.chat.tokenizer, self.texts, runtime=self.runtime
            )
        return figures

    def sample(self, model: GPT2) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Figures about sampled answers, and rows with the first few beside the base's."""
        if not self.prompts:
            return {}, []
        answers = answer(model, self.chat, self.prompts, self.max_answer)
        if self._before is None:
            before = answer(self.base, self.chat, self.prompts[:SHOWN], self.max_answer)
            self._before = [self._text(given) for given in before]
        rows = [
            {"prompt": self.chat.render(prompt, add_generation_prompt=True),
             "text": self._text(given), "base": before}
            for prompt, given, before in zip(
                self.prompts[:SHOWN], answers, self._before, strict=False
            )
        ]  # fmt: skip
        figures = {
            "stop_rate": sum(given.stopped for given in answers) / len(answers),
            "answer_tokens": sum(len(given.ids) for given in answers) / len(answers),
        }
        return figures, rows

    def _text(self, given: "Answer") -> str:
        return self.chat.tokenizer.decode(given.ids)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said."""

    ids: list[int]
    """Without the token that stopped it."""
    stopped: bool
    """Whether it ended by itself."""


def answer(
    model: GPT2, chat: ChatTemplate, prompts: Sequence[Sequence[Message]], max_answer: int
) -> list[Answer]:
    """The answers of a model, always drawn with the same random numbers.

    They depend on the seed, the prompt and the place in the answer alone, so two models that agree
    say the same.
    """
    config = SamplingConfig(max_new_tokens=max_answer, temperature=TEMPERATURE, seed=SEED)
    with model.evaluating():
        decoding = Decoding(
            model,
            [chat.prompt(prompt) for prompt in prompts],
            config,
            stop_ids=chat.stop_ids,
            vocab_size=chat.tokenizer.vocab_size,
        )
        while decoding.active:
            decoding.step()
    answers = []
    for row, (ids, begin) in enumerate(zip(decoding.sequences, decoding.starts, strict=True)):
        stopped = decoding.finished[row] == "stop"
        answers.append(Answer(ids[begin : len(ids) - stopped], stopped))
    return answers
