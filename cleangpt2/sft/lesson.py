"""From rows of data sets to all that a run learns from and is measured by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cleangpt2.data.records import Record, Records
from cleangpt2.errors import ConfigError
from cleangpt2.model.config import GPT2Config
from cleangpt2.sft.audit import Audit, audit
from cleangpt2.sft.batches import Batches
from cleangpt2.sft.config import SFTConfig
from cleangpt2.sft.examples import Examples, fit
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.chat import ChatTemplate, Message, load_template

MOST_HELD_OUT = 500
ROOM = 16
"""Tokens that an answer to a held-out prompt has at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """What a run learns, in rows, and what it is measured by."""

    shape: GPT2Config
    """The model's, with a row for each token that the template has added."""
    known: int
    """Tokens that the model knew before."""
    chat: ChatTemplate
    batches: Batches
    audit: Audit
    """How the answers to be learned end."""
    held_out: Examples | None
    held_out_records: Sequence[Record]

    def prompts(self, count: int) -> list[Sequence[Message]]:
        """The first held-out conversations without their last answers, where these have room."""
        found: list[Sequence[Message]] = []
        for record in self.held_out_records:
            if len(found) == count:
                break
            prompt = record.messages[:-1]
            if prompt and len(self.chat.prompt(prompt)) + ROOM <= self.shape.n_positions:
                found.append(prompt)
        return found


def prepare(
    records: Records,
    tokenizer: Tokenizer,
    shape: GPT2Config,
    config: SFTConfig,
    *,
    template: str | None = None,
    validation: Records | None = None,
    validation_share: float = 0.0,
) -> Lesson:
    """Encode, cut, check and pack the examples.

    Args:
        records: What to learn.
        tokenizer: The model's.
        shape: The model's configuration.
        config: How to learn it.
        template: As for ``load_template``; if not given, "plain" for texts that are laid out
            already.
        validation: Held-out examples.
        validation_share: Part of `records` to hold out where there are none.

    Raises:
        DataError: There is nothing to learn, or no end token (see ``audit``).
        TokenizerError: The template cannot lay out a conversation.
        ConfigError: Settings that exclude each other.
    """
    chat = load_template("plain" if template is None and records.is_raw else template, tokenizer)
    added = chat.tokenizer.vocab_size - tokenizer.vocab_size
    if added and config.lora:
        raise ConfigError(
            f"the template {chat.name} adds {added} tokens to the vocabulary, and an adapter "
            "leaves their embeddings as they are, so the model would not tell them apart: take "
            "--template alpaca, or leave out --lora"
        )
    context = config.context or shape.n_positions
    if context > shape.n_positions:
        raise ConfigError(
            f"context {context} is longer than the model's {shape.n_positions} positions: lower it"
        )
    if validation is None:
        train, kept = _split(records.records, validation_share, config.seed)
    else:
        train, kept = records.records, validation.records[:MOST_HELD_OUT]
    examples = _examples(train, chat, context, config.train_on)
    return Lesson(
        shape=_grown(shape, chat),
        known=tokenizer.vocab_size,
        chat=chat,
        batches=Batches(examples, config),
        audit=audit(examples, chat.end_id),
        # Answers alone are measured whatever is learned, so that runs compare.
        held_out=_examples(kept, chat, context, "completion") if kept else None,
        held_out_records=kept,
    )


def _examples(
    records: Sequence[Record], chat: ChatTemplate, context: int, train_on: str
) -> Examples:
    encoded = chat.encode_batch([record.messages for record in records])
    return fit(encoded, context=context, train_on=train_on)


def _split(
    records: Sequence[Record], share: float, seed: int
) -> tuple[Sequence[Record], Sequence[Record]]:
    """Records to learn, and others that are held out; their order stays."""
    count = min(MOST_HELD_OUT, round(share * len(records)))
    chosen = np.random.default_rng(seed).permutation(len(records))[:count]
    held_out = set(chosen.tolist())
    return (
        [record for i, record in enumerate(records) if i not in held_out],
        [record for i, record in enumerate(records) if i in held_out],
    )


def _grown(shape: GPT2Config, chat: ChatTemplate) -> GPT2Config:
    """The model's configuration when it knows the tokens of the template, and stops at its end."""
    rows = max(shape.vocab_size, chat.tokenizer.vocab_size)
    return replace(shape, vocab_size=rows, eos_token_id=chat.end_id)
