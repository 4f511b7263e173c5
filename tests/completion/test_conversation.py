"""A conversation is its turns: prompts made of them, answers drawn from these, room for both."""

import pytest

from cleangpt2.completion import generate
from cleangpt2.completion.conversation import Conversation, Turn
from cleangpt2.completion.prompts import Prompt
from cleangpt2.errors import ConfigError, ContextLengthError, InputError
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.tokenizer.chat import Message, load_template
from tests.stubs import constant_model, random_model


@pytest.fixture(scope="module")
def template(tokenizer):
    return load_template("chatml", tokenizer)


@pytest.fixture
def begin(tokenizer, template):
    """A conversation with a model that knows the template's tokens."""
    model = random_model(template.tokenizer.vocab_size, n_positions=160)

    def begin(chat=template, *, system="", **settings):
        config = SamplingConfig(**({"max_new_tokens": 6, "seed": 3} | settings))
        return Conversation(model, tokenizer, chat, system=system, config=config)

    return begin


def said(conversation, *messages):
    return ["".join(conversation.ask(message)) for message in messages]


def test_an_answer_is_what_generate_gives_for_the_templates_ids(begin, template):
    conversation = begin(system="Be kind.")
    answer = said(conversation, "The dog")[0]
    asked = [Message("system", "Be kind."), Message("user", "The dog")]
    prompt = Prompt(template.render(asked, add_generation_prompt=True), template.prompt(asked))
    out = generate(
        conversation.model, template.tokenizer, prompt, max_new_tokens=6, seed=3,
        stop_ids=template.stop_ids,
    )  # fmt: skip
    assert conversation.turns == [Turn("The dog", answer, out)]
    assert (answer, out.prompt_ids) == (out.text, template.prompt(asked))


def test_the_model_reads_all_that_was_said_before(begin, template):
    conversation = begin()
    first, _ = said(conversation, "The dog", "was")
    messages = [Message("user", "The dog"), Message("assistant", first), Message("user", "was")]
    assert conversation.turns[1].completion.prompt_ids == template.prompt(messages)


def test_the_templates_own_end_token_ends_an_answer(tokenizer, template):
    end = template.end_id
    model = constant_model([30.0 * (id == end) for id in range(template.tokenizer.vocab_size)])
    conversation = Conversation(model, tokenizer, template)
    assert said(conversation, "dog") == [""] and end != tokenizer.eos_id
    completion = conversation.turns[0].completion
    assert (completion.ids, completion.finish_reason) == ([end], "stop")


def test_a_seed_gives_the_same_conversation_again(begin):
    messages = ["The dog", "was", "happy"]
    assert said(begin(), *messages) == said(begin(), *messages)
    assert said(begin(), *messages) != said(begin(seed=4), *messages)


def test_without_a_seed_one_is_drawn_and_kept(begin):
    conversation = begin(seed=None)
    answers = said(conversation, "The dog", "was")
    assert said(begin(seed=conversation.config.seed), "The dog", "was") == answers


def test_a_retry_replaces_the_answer_by_another_and_another(begin):
    conversation = begin()
    said(conversation, "The dog", "was")
    answers = [conversation.turns[1].answer]
    answers += ["".join(conversation.retry()) for _ in range(3)]
    assert len(set(answers)) == 4
    assert [turn.message for turn in conversation.turns] == ["The dog", "was"]
    assert conversation.turns[1].answer == answers[-1]


def test_undo_and_reset(begin):
    conversation = begin(system="Be kind.")
    said(conversation, "The dog", "was")
    assert conversation.undo().message == "was"
    again = "".join(conversation.ask("was"))
    assert again == said(begin(system="Be kind."), "The dog", "was")[1]
    conversation.reset()
    assert conversation.messages() == [Message("system", "Be kind.")]
    with pytest.raises(InputError, match="nothing was said yet"):
        conversation.undo()
    with pytest.raises(InputError, match="nothing was said yet"):
        next(conversation.retry())


# --- broken off ------------------------------------------------------------------------------


def test_what_was_written_of_a_broken_answer_is_the_answer(begin):
    whole = said(begin(), "The dog")[0]
    conversation = begin()
    pieces = conversation.ask("The dog")
    start = next(pieces) + next(pieces)
    pieces.close()
    assert conversation.turns == [Turn("The dog", start, None)]
    assert whole.startswith(start) and whole != start


def test_an_answer_that_never_began_leaves_no_turn(begin, monkeypatch):
    conversation = begin()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversation.model, "hidden", interrupted)
    with pytest.raises(KeyboardInterrupt):
        said(conversation, "The dog")
    assert conversation.turns == []


def test_a_retry_that_never_began_leaves_the_answer_there_was(begin, monkeypatch):
    conversation = begin()
    said(conversation, "The dog")
    before = list(conversation.turns)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversation.model, "hidden", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(conversation.retry())
    assert conversation.turns == before


# --- the context -----------------------------------------------------------------------------


def test_past_the_context_the_oldest_turns_fall_away_whole(begin, template):
    conversation = begin(system="Be kind.", max_new_tokens=10)
    forgotten = []
    for number in range(12):
        said(conversation, f"{number} the dog was happy")
        ids, first = conversation.turns[-1].completion.prompt_ids, conversation.forgotten
        seen = Conversation.messages(conversation, first)[:-1]  # less the answer to these ids
        assert ids == template.prompt(seen)
        assert seen[0] == Message("system", "Be kind.") and seen[1].role == "user"
        assert len(ids) <= 160 - 10
        if first:  # one turn more would have been too long
            longer = conversation.messages(first - 1)[:-1]
            assert len(template.prompt(longer)) > 160 - 10
        forgotten.append(first)
    assert forgotten[0] == 0 and forgotten[-1] > 0 and forgotten == sorted(forgotten)
    assert len(conversation.turns) == 12  # they are all remembered, to be saved


def test_as_many_turns_stay_as_fit(begin, template):
    conversation = begin(max_new_tokens=10)
    said(conversation, *(f"{number} the dog" for number in range(5)))
    seen = set()
    for length in range(1, 60):
        message = "q" * length
        lengths = [
            len(template.prompt([*conversation.messages(first), Message("user", message)]))
            for first in range(6)
        ]
        prompt, first = conversation.fit(message)
        assert first == next(i for i, ids in enumerate(lengths) if ids <= 150)
        assert len(prompt.ids) == lengths[first]
        seen.add(150 - lengths[first])
    assert 0 in seen  # one filled it to the last place


def test_a_message_too_long_by_itself_is_refused_and_forgotten(begin):
    conversation = begin(system="Be kind.")
    said(conversation, "The dog")
    with pytest.raises(ContextLengthError, match=r"with the system message, and at most 154 fit"):
        said(conversation, "dog " * 200)
    assert [turn.message for turn in conversation.turns] == ["The dog"]
    assert said(conversation, "was")


def test_a_long_answer_leaves_three_quarters_of_the_context_to_the_prompt(begin):
    assert begin(max_new_tokens=10_000).room == 40
    assert begin(max_new_tokens=12).room == 12


# --- base models -----------------------------------------------------------------------------


def test_a_base_model_goes_on_with_the_text(begin):
    conversation = begin(None)
    first, _, _ = said(conversation, "The dog", ".", "was")
    turns = conversation.turns
    assert turns[0].completion.prompt == "The dog"
    assert turns[1].completion.prompt == f"The dog{first}."
    assert turns[2].completion.prompt.endswith(turns[1].answer + " was")


def test_where_the_model_ended_a_text_another_begins(begin, tokenizer):
    conversation = begin(None)
    over = generate(
        conversation.model, tokenizer, "x", stop_ids=range(tokenizer.vocab_size), seed=1
    )
    assert over.finish_reason == "stop"
    conversation.turns = [Turn("The dog", " ran.", over)]
    said(conversation, "The girl")
    assert conversation.turns[1].completion.prompt == "The girl"
    assert conversation.texts() == ["The dog ran.", f"The girl{conversation.turns[1].answer}"]


# --- mistakes --------------------------------------------------------------------------------


def test_a_template_with_tokens_the_model_lacks_is_refused(tokenizer, template):
    model = random_model(tokenizer.vocab_size)
    with pytest.raises(ConfigError, match="chatml needs 302 tokens and the model knows 300"):
        Conversation(model, tokenizer, template)


def test_a_base_model_takes_no_system_message(begin):
    with pytest.raises(ConfigError, match="no place for a system message"):
        begin(None, system="Be kind.")
