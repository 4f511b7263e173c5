"""Models side by side: equal ones cannot be told apart, and KL is what its definition gives."""

import pytest
import torch
import torch.nn.functional as F

from cleangpt2.completion import generate
from cleangpt2.completion.prompts import Prompt
from cleangpt2.errors import ConfigError
from cleangpt2.model.lora import add_adapter
from cleangpt2.model.lora_config import LoraConfig
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sft.compare import Contestant, check_vocabulary, compare, read
from cleangpt2.sft.compare_page import page
from tests.report.reading import Page
from tests.stubs import constant_model, random_model, small_tokenizer

CONFIG = SamplingConfig(seed=5, max_new_tokens=20, temperature=0.9)
TOKENIZER = small_tokenizer()
V = TOKENIZER.vocab_size


def other_model(n_positions=128, padding=0):
    """Another model than `random_model` makes."""
    return random_model(V + padding, n_positions=n_positions, seed=11)


def contest(*models):
    return [Contestant(f"model {i}", model, TOKENIZER) for i, model in enumerate(models)]


def comparisons(*models, config=CONFIG, prompts=("The dog", "Once upon")):
    asked = [Prompt.read(text, TOKENIZER) for text in prompts]
    stop_ids = [TOKENIZER.eos_id]
    return list(compare(contest(*models), asked, config=config, stop_ids=stop_ids))


@pytest.fixture(scope="module", autouse=True)
def several_parts():
    """Answers are longer than what is computed at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cleangpt2.sft.compare._PLACES", 8)
        yield


@pytest.fixture(scope="module")
def models():
    """Two models, of which the second has rows of padding that a softmax must leave out."""
    return random_model(V, n_positions=128), other_model(padding=7)


@pytest.fixture(scope="module")
def found(models, several_parts):
    return comparisons(*models)


def test_equal_weights_write_equal_answers_and_differ_by_nothing(models):
    for comparison in comparisons(models[0], random_model(V, n_positions=128)):
        first, second = comparison.answers
        assert first == second and len(first.tokens) > 1
        assert first.logprobs[0] == first.logprobs[1]
        assert set(first.kl[1]) == {0.0} and set(first.change(1)) == {0.0}


def test_an_adapter_that_learned_nothing_is_its_base(models):
    adapted = random_model(V, n_positions=128)
    add_adapter(adapted, LoraConfig(r=2))
    [comparison] = comparisons(models[0], adapted, prompts=["The dog"])
    assert comparison.answers[0] == comparison.answers[1]


def test_the_answers_are_those_that_generate_gives(models, found):
    for comparison in found:
        for model, answer in zip(models, comparison.answers, strict=True):
            alone = generate(model, TOKENIZER, comparison.prompt, config=CONFIG)
            assert answer.completion == alone


def test_the_answers_of_different_models_differ(found):
    for comparison in found:
        first, second = comparison.answers
        assert first.completion.ids != second.completion.ids
        assert sum(first.kl[1]) > 0.1 and first.kl[0] == [0.0] * len(first.tokens)


def test_kl_and_its_sum_are_what_the_definition_gives(models, found):
    long = 0
    for comparison in found:
        for answer in comparison.answers:
            completion = answer.completion
            ids, P = [*completion.prompt_ids, *completion.ids], len(completion.prompt_ids)
            with torch.no_grad():
                p, q = (m(ids)[P - 1 : -1, :V].double().log_softmax(-1) for m in models)
            direct = F.kl_div(q, p, reduction="none", log_target=True).sum(-1)
            assert answer.kl[1] == pytest.approx(direct.tolist(), abs=1e-5)
            assert sum(answer.kl[1]) == pytest.approx(direct.sum().item(), abs=1e-4)
            for row, logprobs in zip((p, q), answer.logprobs, strict=True):
                chosen = row[torch.arange(len(row)), torch.tensor(completion.ids)]
                assert logprobs == pytest.approx(chosen.tolist(), abs=1e-5)
            long += len(answer.tokens) > 16
    assert long


def test_the_writers_own_view_is_what_the_sampler_reported(found):
    for comparison in found:
        for m, answer in enumerate(comparison.answers):
            assert answer.logprobs[m] == pytest.approx(answer.completion.logprobs, abs=1e-5)


def test_no_answer_outgrows_the_smallest_context(models):
    short = random_model(V, n_positions=16)
    for answer in comparisons(models[0], short, prompts=["The dog"])[0].answers:
        assert len(answer.completion.prompt_ids) + len(answer.completion.ids) <= 16


def test_an_answer_without_a_token_has_no_figures(models):
    full = TOKENIZER.encode("dog " * 200)[:128]
    completion = generate(models[0], TOKENIZER, Prompt("", full), config=CONFIG)
    answer = read(models, TOKENIZER, completion)
    assert (answer.tokens, answer.logprobs, answer.kl) == ([], [[], []], [[], []])


def test_other_vocabularies_are_refused(models):
    other = small_tokenizer(290)
    with pytest.raises(ConfigError, match=r"different vocabularies \(300 tokens and 290\)"):
        check_vocabulary([*contest(models[0]), Contestant("b", models[1], other)])
    added = TOKENIZER.add_special_tokens("<|x|>")
    with pytest.raises(ConfigError, match="different vocabularies"):
        check_vocabulary([*contest(models[0]), Contestant("b", models[1], added)])


def test_without_a_seed_the_random_numbers_would_differ(models):
    with pytest.raises(ConfigError, match="seed is None"):
        comparisons(*models, config=SamplingConfig())


def test_the_page_shows_every_token_and_the_sums(models, found):
    html = page(found, ["a <b>", "b"], "seed 5")
    read_page = Page(html)
    assert not {"script", "link", "img", "b"} & set(read_page.tags)
    assert not [name for _, name, _ in read_page.attributes if name in ("src", "href")]
    for comparison in found:
        for answer in comparison.answers:
            assert f"{sum(answer.kl[1]):.4f}" in read_page.text
            assert f"{sum(answer.logprobs[0]):.2f}" in read_page.text
            assert all(repr(token) in read_page.text for token in answer.tokens)


def test_a_model_that_stops_shows_its_stop_token():
    model = constant_model([30.0 * (id == TOKENIZER.eos_id) for id in range(V)])
    [comparison] = comparisons(model, model, prompts=["The dog"])
    assert comparison.answers[0].tokens == ["<|endoftext|>"]
    assert comparison.answers[0].completion.finish_reason == "stop"
