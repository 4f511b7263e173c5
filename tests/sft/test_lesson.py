import json

import pytest

from cleangpt2.data.records import read_records
from cleangpt2.errors import ConfigError
from cleangpt2.model.config import GPT2Config
from cleangpt2.sft.config import SFTConfig
from cleangpt2.sft.lesson import MOST_HELD_OUT, prepare
from tests.stubs import small_tokenizer

TOKENIZER = small_tokenizer()
SHAPE = GPT2Config(
    vocab_size=TOKENIZER.vocab_size, n_positions=128, n_embd=8, n_layer=1, n_head=2,
    eos_token_id=TOKENIZER.eos_id,
)  # fmt: skip


def records(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_records(path)


def pairs(count):
    return [{"instruction": f"say {n}", "output": f"the {n}"} for n in range(count)]


def lesson(found, template="plain", **settings):
    config = {name: settings.pop(name) for name in ("lora", "context", "train_on", "seed")
              if name in settings}  # fmt: skip
    return prepare(found, TOKENIZER, SHAPE, SFTConfig(**config), template=template, **settings)


def test_a_share_is_held_out_always_the_same_and_never_learned(tmp_path):
    found = records(tmp_path, pairs(100))
    one, again = (lesson(found, validation_share=0.1) for _ in range(2))
    assert len(one.held_out) == 10 and len(one.batches.examples) == 90
    assert one.held_out_records == again.held_out_records
    learned = {row.ids.tobytes() for row in one.batches.examples.rows}
    assert not learned & {row.ids.tobytes() for row in one.held_out.rows}
    assert lesson(found, validation_share=0.1, seed=2).held_out_records != one.held_out_records
    assert lesson(found).held_out is None
    assert round(0.9 * 1e6) > MOST_HELD_OUT


def test_files_of_their_own_are_held_out_whole(tmp_path):
    other = records(tmp_path, pairs(7), "other.jsonl")
    found = lesson(records(tmp_path, pairs(20)), validation=other, validation_share=0.5)
    assert (len(found.batches.examples), len(found.held_out)) == (20, 7)


def test_held_out_prompts_end_before_their_answer_and_leave_it_room(tmp_path):
    long = {"instruction": "xyzq" * 30, "output": "y"}
    found = records(tmp_path, [long, *pairs(5)])
    made = lesson(found, validation=found)
    prompts = made.prompts(3)
    assert [p[-1].role for p in prompts] == ["user"] * 3
    assert prompts[0][0].content == "say 0"  # the first one leaves no room
    assert len(made.prompts(99)) == 5


def test_texts_that_bring_their_layout_are_plain_and_others_are_not(tmp_path):
    raw = records(tmp_path, [{"prompt": "the dog", "completion": " was happy"}] * 2)
    assert lesson(raw, template=None).chat.name == "plain"
    assert lesson(records(tmp_path, pairs(2)), template=None).chat.name == "alpaca"


def test_texts_without_prompts_are_learned_and_never_asked(tmp_path):
    texts = records(tmp_path, [{"text": "the dog was happy"}] * 4)
    made = lesson(texts, template=None, validation=texts)
    assert made.prompts(5) == []
    assert made.batches.examples.targets == 4 * made.batches.examples.lengths[0]


def test_a_template_with_tokens_of_its_own_makes_the_model_larger(tmp_path):
    made = lesson(records(tmp_path, pairs(2)), template="chatml")
    assert made.shape.vocab_size == SHAPE.vocab_size + 2 and made.known == SHAPE.vocab_size
    assert made.shape.eos_token_id == made.chat.end_id
    with pytest.raises(ConfigError, match="the template chatml adds 2 tokens"):
        lesson(records(tmp_path, pairs(2)), template="chatml", lora=4)


def test_held_out_answers_are_measured_alone_whatever_is_learned(tmp_path):
    found = records(tmp_path, pairs(10))
    both, answers = (lesson(found, validation=found, train_on=way) for way in ("all", "completion"))
    assert both.batches.examples.targets > answers.batches.examples.targets
    assert both.held_out.targets == answers.held_out.targets


def test_every_lesson_is_audited(tmp_path):
    made = lesson(records(tmp_path, pairs(10)))
    assert (made.audit.trained, made.audit.examples) == (10, 10)
