"""The bundled models: small enough, whole, and as good as their cards say."""

import re

import pytest

import cleangpt2
from cleangpt2.hub import BUNDLED, locate
from cleangpt2.texts import read_all
from cleangpt2.training.validation import held_out_bits_per_byte


@pytest.fixture(scope="module", params=BUNDLED)
def name(request):
    return request.param


def card_figure(name):
    card = locate(name).file("README.md").read_text(encoding="utf-8")
    return float(re.search(r"\*\*(\d\.\d+)\*\*", card)[1])


def test_they_take_at_most_12_mb(name):
    assert sum(path.stat().st_size for path in locate(name).folder.iterdir()) < 12e6


def test_both_speak_one_vocabulary_with_room_for_later_stages():
    story, tiny = (cleangpt2.Tokenizer.from_pretrained(name) for name in BUNDLED)
    assert story.vocabulary == tiny.vocabulary
    assert story.vocab_size == 4096
    special = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    assert story.special_tokens == dict(zip(special, range(4092, 4096), strict=True))


def test_a_few_stories_cost_about_what_the_card_says(name, shared_data):
    model, tokenizer = cleangpt2.load(name, device="cpu")
    stories = read_all([shared_data / "pretrain" / "tinystories_valid.jsonl.gz"])[:40]
    bits = held_out_bits_per_byte(model, tokenizer, stories)
    assert bits == pytest.approx(card_figure(name), rel=0.05)


@pytest.mark.slow
def test_all_held_out_stories_cost_exactly_what_the_card_says(name, shared_data):
    model, tokenizer = cleangpt2.load(name, device="cpu")
    stories = read_all([shared_data / "pretrain" / "tinystories_valid.jsonl.gz"])
    bits = held_out_bits_per_byte(model, tokenizer, stories)
    assert bits == pytest.approx(card_figure(name), abs=2e-4)
    assert bits < {"story": 0.90, "tiny": 1.20}[name]


def test_they_write_english(name):
    model, tokenizer = cleangpt2.load(name, device="cpu")
    out = cleangpt2.generate(model, tokenizer, "Once upon a time", max_new_tokens=12, temperature=0)
    assert out.text.startswith(", there was a little")
