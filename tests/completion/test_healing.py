"""Token healing against a scan of the whole vocabulary at every step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cleangpt2 as cg
from cleangpt2.completion import generate, stream, stream_all
from cleangpt2.completion.healing import agreeing
from cleangpt2.completion.prefixes import Prefixes
from cleangpt2.completion.prompts import kept_by_healing
from cleangpt2.errors import SamplingError
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.noise import generator
from cleangpt2.tokenizer import Tokenizer
from tests.stubs import constant_model, probabilities, small_tokenizer

TOKENS = small_tokenizer()
IDS = TOKENS.vocabulary.ids
PREFIXES = Prefixes(IDS)

# Ends inside words, behind spaces, inside a character's neighbourhood, and where nothing heals.
PROMPTS = [
    "Once upon a ti",
    "The dog ",
    "gi",
    "The girl was hap",
    "th",
    "é",
    "If computers",
    "zq",
    "",
]
TEXTS = st.lists(st.sampled_from([*"aeghinortz .é🙂", "the ", "girl", " dog"]), max_size=8).map(
    "".join
)


def fits(token, owed):
    """What healing allows, by its definition."""
    return token.startswith(owed) or owed.startswith(token)


def scanned_end(tokenizer, ids):
    """How many tokens stay, by trying every end against every token."""
    ends = {n: tokenizer.decode_bytes(ids[n:]) for n in range(len(ids))}
    tokens = tokenizer.vocabulary.ids
    return min(
        (n for n, end in ends.items() if any(t.startswith(end) and t != end for t in tokens)),
        default=len(ids),
    )


@torch.no_grad()
def plain_loop(model, tokenizer, prompt, config, sample):
    """Heal and continue without a cache, a batch or a sorted list."""
    ids = tokenizer.encode(prompt)
    kept = scanned_end(tokenizer, ids)
    owed = tokenizer.decode_bytes(ids[kept:])
    ids = ids[:kept] or [tokenizer.eos_id]
    start, noise = len(ids), generator(config.seed, ids, sample)
    for _ in range(config.max_new_tokens):
        logits = model(torch.tensor([ids]))[0, -1].double().numpy()
        logits[tokenizer.vocab_size :] = -torch.inf
        if owed:
            allowed = {i for token, i in tokenizer.vocabulary.ids.items() if fits(token, owed)}
            logits[[i for i in range(len(logits)) if i not in allowed]] = -torch.inf
        u = noise.random()
        if config.temperature == 0:
            ids.append(int(logits.argmax()))
        else:
            ids.append(int((probabilities(logits, config).cumsum() <= u).sum()))
        if ids[-1] == tokenizer.eos_id:
            break
        owed = owed[len(tokenizer.token_bytes(ids[-1])) :]
    return ids[:start], ids[start:]


# ---- which tokens -------------------------------------------------------------------------


@given(TEXTS)
def test_what_comes_off_is_the_longest_end_that_a_longer_token_begins_with(text):
    ids = TOKENS.encode(text)
    assert kept_by_healing(ids, TOKENS, PREFIXES) == scanned_end(TOKENS, ids)


@given(st.sampled_from(sorted(IDS)) | TEXTS.map(str.encode), st.integers(0, 9))
def test_what_is_allowed_is_what_a_scan_of_the_vocabulary_finds(text, n):
    owed = text[: n + 1] or b"x"
    assert sorted(agreeing(owed, PREFIXES)) == sorted(i for t, i in IDS.items() if fits(t, owed))


@pytest.mark.parametrize("owed", [b" ti", b" ", b":/", b"\xf0\x9f", b"indivis", b"\xff\xfe"])
def test_what_is_allowed_among_the_50_257_of_gpt2(owed, shared_data):
    ids = Tokenizer.from_pretrained(shared_data / "gpt2").vocabulary.ids
    allowed = agreeing(owed, Prefixes(ids))
    assert sorted(allowed) == sorted(i for token, i in ids.items() if fits(token, owed))
    assert 0 < len(allowed) < 40_000


@pytest.mark.parametrize(
    ("prompt", "healed", "likely"),
    [("Once upon a ti", b" ti", " time"), ("Once upon a ", b" ", " time"),
     ("See https:/", b":/", "://"), ("Once upon a time", b" time", " time")],
)  # fmt: skip
def test_a_prompt_of_gpt2_can_go_on_as_it_would_have_been_written(
    shared_data, prompt, healed, likely
):
    gpt2 = Tokenizer.from_pretrained(shared_data / "gpt2")
    ids, prefixes = gpt2.encode(prompt), Prefixes(gpt2.vocabulary.ids)
    kept = kept_by_healing(ids, gpt2, prefixes)
    assert gpt2.decode_bytes(ids[kept:]) == healed
    assert gpt2.encode(likely)[0] in agreeing(healed, prefixes)


# ---- what is written ----------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 1.3, "top_k": 40}])
def test_a_batch_of_prompts_becomes_what_a_plain_loop_makes_of_each(model, tokenizer, settings):
    config = SamplingConfig(seed=5, max_new_tokens=8, **settings)
    outs = generate(model, tokenizer, PROMPTS, heal=True, num_samples=2, config=config)
    assert any(out.ids != outs[0].ids for out in outs)
    for number, prompt in enumerate(PROMPTS):
        for out in outs[2 * number : 2 * number + 2]:
            expected = plain_loop(model, tokenizer, prompt, config, out.sample)
            assert (out.prompt_ids, out.ids) == expected


def test_prompt_and_text_are_what_the_tokens_say(model, tokenizer):
    for seed in range(2):
        settings = {"heal": True, "seed": seed, "max_new_tokens": 12, "stop_ids": ()}
        outs = generate(model, tokenizer, PROMPTS, **settings)
        assert any(len(out.prompt_ids) < len(tokenizer.encode(out.prompt)) for out in outs)
        for out in outs[:-1]:  # the empty one begins with a token that is no text
            whole = [
                id for id in out.prompt_ids if id != tokenizer.eos_id or out.prompt_ids != [id]
            ]
            said = tokenizer.decode_bytes(whole + out.ids)
            begun = out.prompt.encode()
            assert said.startswith(begun)
            assert out.text == said[len(begun) :].decode(errors="replace")
            pieces = list(stream(model, tokenizer, out.prompt, **settings))
            assert "".join(pieces) == out.text


def test_without_healing_nothing_comes_off(model, tokenizer):
    [out] = generate(model, tokenizer, ["Once upon a ti"], max_new_tokens=1)
    assert out.prompt_ids == tokenizer.encode("Once upon a ti")


def test_no_special_token_comes_before_all_is_said_again(tokenizer):
    logits = [0.0] * tokenizer.vocab_size
    logits[tokenizer.eos_id] = 100.0
    out = generate(constant_model(logits), tokenizer, "The gi", heal=True, temperature=0)
    said = tokenizer.decode_bytes(out.prompt_ids + out.ids[:-1])
    assert out.ids[-1] == tokenizer.eos_id and said.startswith(b"The gi")
    assert out.text == said[len(b"The gi") :].decode()


def test_a_response_cut_before_all_is_said_again_has_no_text(tokenizer):
    logits = [0.0] * tokenizer.vocab_size
    for byte in b" gi":  # one byte at a time
        logits[tokenizer.encode(chr(byte))[0]] = 10.0
    write = constant_model(logits)
    for n, text in [(0, ""), (1, ""), (3, ""), (5, None)]:
        out = generate(write, tokenizer, "The gi", heal=True, temperature=0, max_new_tokens=n)
        assert len(out.ids) == n and (out.text == text or (text is None and len(out.text) == 2))


def test_a_stop_string_in_what_is_said_again_does_not_count(alphabet, tokenizer):
    [d] = tokenizer.encode("d")  # "do" begins "dog": it is said again as "d", then what follows d
    settings = {"temperature": 0, "max_new_tokens": 6, "heal": True}
    whole = generate(alphabet, tokenizer, "a d", **settings)
    assert tokenizer.decode(whole.prompt_ids + whole.ids) == "a d" + whole.text
    assert d not in whole.prompt_ids
    cut = generate(alphabet, tokenizer, "a d", stop=["d", whole.text[2:4]], **settings)
    assert (cut.text, cut.finish_reason) == (whole.text[:2], "stop")


def test_rows_end_and_others_go_on_healing_by_their_own_prompt(babbler, tokenizer):
    prompts = ["a", "girl had a d", "the girl ha", "The gi", "dog t"]
    settings = {"heal": True, "stop": ["o", "r"], "max_new_tokens": 15, "seed": 2}
    deltas = list(stream_all(babbler, tokenizer, prompts, **settings))
    done = {delta.row: delta.completion for delta in deltas if delta.completion}
    assert len({len(out.ids) for out in done.values()}) > 2  # they do end at different times
    for row, prompt in enumerate(prompts):
        assert done[row] == generate(babbler, tokenizer, prompt, **settings)


def test_start_goes_to_the_end_of_a_prompt_that_heals(model, tokenizer):
    with pytest.raises(SamplingError, match="start and heal exclude each other: put the text"):
        generate(model, tokenizer, "a", heal=True, start="b")


def test_the_story_model_goes_on_sensibly():
    model, tokenizer = cg.load("story")
    settings = {"heal": True, "temperature": 0, "max_new_tokens": 12}
    for prompt in ["Once upon a ti", "Once upon a "]:
        whole = prompt + generate(model, tokenizer, prompt, **settings).text
        assert whole.startswith("Once upon a time, there was a little girl")
    out = generate(model, tokenizer, "Once upon a ", temperature=0, max_new_tokens=4)
    assert not out.text.startswith("time")
