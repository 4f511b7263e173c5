"""The published outputs: the table is right, and a model that differs from it is told so.

The weights are not here, so a small stand-in takes GPT-2's place, with a table of its own.
"""

import dataclasses
import gzip
import json

import pytest
import torch
import torch.nn.functional as F

from cleangpt2.doctor.reference import MEASURES, Row, compare, has_its_weights, table
from cleangpt2.model.config import SIZES
from cleangpt2.model.pretrained import outline
from cleangpt2.tokenizer import Tokenizer
from tests.helpers import ROOT
from tests.stubs import constant_model, random_model, small_tokenizer

TEXT = "The dog was happy"


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return random_model(tokenizer.vocab_size)


@pytest.fixture(scope="module")
@torch.no_grad()
def rows(model, tokenizer):
    """What this model says, by other ways than the doctor's where there are any."""
    ids = tokenizer.encode(TEXT)
    logits = model(ids)
    top = sorted(range(tokenizer.vocab_size), key=lambda i: -float(logits[-1, i]))[:5]
    greedy = list(ids)
    for _ in range(6):
        greedy.append(int(model(greedy)[-1].argmax()))
    start = [tokenizer.eos_id]
    for _ in range(4):
        start.append(int(model(start)[-1].argmax()))
    losses = [-F.log_softmax(logits[t], -1)[ids[t + 1]] for t in range(len(ids) - 1)]
    trace = model.trace(ids)
    found = {
        "parameters": [sum(p.numel() for p in model.state_dict().values())],
        "ids": ids,
        "weights": model.h[0].attn.c_attn.weight[:4, 0].tolist(),  # stored transposed
        "logits": [float(logits[-1, i]) for i in top],
        "attention": trace.attention["h.0"][0, 1, :2].tolist(),
        "loss": [float(sum(losses) / len(losses))],
        "hidden": trace.hidden["ln_f"][0, :5].tolist(),
        "greedy": greedy[len(ids) :],
    }
    names = dict.fromkeys(found, TEXT) | {"weights": "h.0.attn.c_attn.weight"}
    exact = {"parameters", "ids", "greedy"}
    made = [
        Row(
            check=check,
            name=names[check],
            text=TEXT,
            ids=tuple(ids),
            tokens=tuple(top) if check == "logits" else (),
            expected=tuple(map(float, expected)),
            tolerance=0 if check in exact else 2e-5,
            source="this test",
        )
        for check, expected in found.items()
    ]
    from_nothing = dataclasses.replace(
        made[-1], name="nothing", text="<|endoftext|>", ids=(start[0],), expected=tuple(start[1:])
    )
    return [*made, from_nothing]


def test_a_model_that_gives_the_published_numbers_passes(model, tokenizer, rows):
    assert {row.check for row in rows} == set(MEASURES)
    found = list(compare(model, tokenizer, rows))
    assert [finding.verdict for finding in found] == ["ok"] * len(rows)
    assert all("source: this test" in finding.detail for finding in found)


@pytest.mark.parametrize("check", MEASURES)
def test_one_changed_number_fails_and_names_the_row(model, tokenizer, rows, check):
    number = next(i for i, row in enumerate(rows) if row.check == check)
    expected = list(rows[number].expected)
    expected[-1] += 1 if rows[number].tolerance == 0 else 3 * rows[number].tolerance
    changed = list(rows)
    changed[number] = dataclasses.replace(rows[number], expected=tuple(expected))
    found = list(compare(model, tokenizer, changed))
    assert [i for i, finding in enumerate(found) if finding.verdict != "ok"] == [number]
    assert found[number].verdict == "failed"
    assert found[number].subject == f"{check}: {rows[number].name}"
    assert f"{expected[-1]:.9g} is published" in found[number].detail
    assert "--device cpu" in found[number].advice


@torch.no_grad()
def test_a_token_that_overtakes_the_five_fails(tokenizer, rows):
    """The five named logits may be right and the sixth too large."""
    other = random_model(tokenizer.vocab_size)
    row = next(row for row in rows if row.check == "logits")
    sixth = next(i for i in range(tokenizer.vocab_size) if i not in row.tokens)
    stream = other.trace(list(row.ids)).hidden["ln_f"][-1]
    other.output_weight[sixth] = stream * 100
    (finding,) = compare(other, tokenizer, [row])
    assert finding.verdict == "failed"


def test_a_broken_model_costs_a_line_and_not_the_others(tokenizer, rows):
    other = random_model(tokenizer.vocab_size)
    with torch.no_grad():
        other.ln_f.weight.fill_(torch.nan)
    other.h[0].attn.c_attn = None
    found = {finding.subject: finding for finding in compare(other, tokenizer, rows)}
    assert len(found) == len(rows)
    assert found["ids: The dog was happy"].verdict == "ok"
    assert found["loss: The dog was happy"].verdict == "failed"
    assert "AttributeError" in found["weights: h.0.attn.c_attn.weight"].detail


def test_nan_is_no_small_difference(tokenizer, rows):
    other = random_model(tokenizer.vocab_size)
    with torch.no_grad():
        other.ln_f.weight.fill_(torch.nan)
    row = next(row for row in rows if row.check == "loss")
    (finding,) = compare(other, tokenizer, [row])
    assert finding.verdict == "failed"


def test_a_continuation_that_stops_early_is_told(model, tokenizer, rows):
    row = next(row for row in rows if row.check == "greedy")
    longer = dataclasses.replace(row, expected=row.expected * 20)  # past the context of 48
    (finding,) = compare(model, tokenizer, [longer])
    assert finding.verdict == "failed"
    assert f"published are {len(longer.expected)}" in finding.detail


def test_a_model_is_known_by_the_first_numbers_of_its_tensors(model, tokenizer, rows):
    assert has_its_weights(model, tokenizer, rows)
    assert not has_its_weights(random_model(tokenizer.vocab_size, seed=4), tokenizer, rows)
    assert not has_its_weights(model, tokenizer, [row for row in rows if row.check != "weights"])


# ---- the table itself -------------------------------------------------------------------------


def test_every_row_has_a_source_a_tolerance_and_a_measure():
    sizes = table()
    assert list(sizes) == ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
    for rows in sizes.values():
        for row in rows:
            assert row.check in MEASURES and row.expected and row.source, row
            assert row.tolerance >= 0
    assert {row.check for row in sizes["gpt2"]} == set(MEASURES)


def test_the_parameters_tell_the_sizes_apart(tokenizer):
    for size, rows in table().items():
        row = next(row for row in rows if row.check == "parameters")
        fits = [
            name
            for name, config in SIZES.items()
            if next(compare(outline(config), tokenizer, [row])).verdict == "ok"
        ]
        assert fits == [size]


def test_a_tolerance_does_not_grow_with_the_number(tokenizer):
    """GPT-2's logits lie beyond -100; a twentieth of one is the tolerance, not of a hundred."""
    row = next(row for row in table()["gpt2"] if row.check == "logits")
    for off, verdict in ((0.04, "ok"), (0.06, "failed")):
        logits = [-200.0] * 50257
        for token, logit in zip(row.tokens, row.expected, strict=True):
            logits[token] = logit + off
        (finding,) = compare(constant_model(logits), tokenizer, [row])
        assert finding.verdict == verdict


def test_the_tensors_of_the_table_exist():
    parameters = dict(outline(SIZES["gpt2"]).named_parameters())
    rows = [row for row in table()["gpt2"] if row.check == "weights"]
    assert len(rows) == 7
    assert all(row.name in parameters for row in rows)


def test_the_ids_of_the_table_are_those_of_the_real_vocabulary(shared_data):
    gpt2 = Tokenizer.from_pretrained(shared_data / "gpt2")
    for row in table()["gpt2"]:
        special = {"<|endoftext|>"}
        if row.check == "ids":
            assert gpt2.encode(row.text) == list(row.expected), row
        elif row.ids:
            assert gpt2.encode(row.text, allowed_special=special) == list(row.ids), row
    greedy = {r.name: gpt2.decode(r.expected) for r in table()["gpt2"] if r.check == "greedy"}
    assert greedy == {
        "The dog": " was found in a field near the intersection of West and West Streets."
        "\n\nThe dog",
        "Hello, my dog is a little": " bit of a mess. I'm not sure if he's going",
        "Today, I": "'m going to be doing a lot of research on this. I",
        "<|endoftext|>": "\nThe first time I saw the new version of",
    }


def test_logits_and_attention_are_those_of_the_published_file(shared_data):
    path = shared_data / "gpt2" / "reference_gpt2_124M.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        published = {row["prompt"]: row for row in map(json.loads, file)}
    for row in table()["gpt2"]:
        if row.check == "logits":
            logits = published[row.text]["logits_last"]
            top = sorted(range(len(logits)), key=lambda i: -logits[i])[:5]
            assert (list(row.tokens), list(row.expected)) == (top, [logits[i] for i in top])
            assert list(row.ids) == published[row.text]["token_ids"]
        elif row.check == "attention":
            second = published[row.text]["attn_softmax"][0][0][1][:2]
            assert row.expected == pytest.approx(second, abs=1e-6)
    assert len(published) == 5


def test_the_table_needs_no_more_than_a_few_kilobytes():
    file = ROOT / "cleangpt2" / "assets" / "reference" / "gpt2.json"
    assert file.stat().st_size < 12_000
