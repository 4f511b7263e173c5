import dataclasses

import numpy as np
import pytest

from cleangpt2.errors import DataError
from cleangpt2.sft.audit import Audit, audit
from cleangpt2.sft.examples import fit
from cleangpt2.tokenizer.chat import Encoded, Message, load_template
from tests.sft.lessons import END, encoded, some
from tests.stubs import small_tokenizer


def test_every_example_that_ends_is_counted():
    assert audit(fit(some(20), context=32), END) == Audit(examples=20, trained=20, cut=0, masked=0)


def test_what_was_cut_is_told_from_what_never_had_an_end():
    given = [encoded([5], [6, END]), encoded([5], [6, 7, 8, END]), encoded([5], [6, 7])]
    found = audit(fit(given, context=3), END)
    assert found == Audit(examples=3, trained=1, cut=1, masked=0)
    assert found.without == 1
    assert str(found) == (
        "1 of 3 answers end with the token that stops (33%), 1 were cut before it, 1 never had it"
    )


def collated(conversations, pad, width):
    """Rows as trl#1623's users had them: padded, and every pad masked by its id."""
    rows = []
    for example in conversations:
        ids = np.full(width, pad, np.int32)
        ids[: len(example.ids)] = example.ids
        mask = np.zeros(width, bool)
        mask[: len(example.mask)] = example.mask
        rows.append(Encoded(ids, mask & (ids != pad)))
    return rows


def test_a_data_set_whose_pad_is_its_end_token_is_refused():
    tokenizer = small_tokenizer()
    chat = load_template("alpaca", tokenizer)
    given = chat.encode_batch(
        [(Message("user", f"the {word}"), Message("assistant", f"a {word}")) for word in "abcd"]
    )
    width = max(len(example.ids) for example in given) + 4
    right = fit(collated(given, pad=tokenizer.encode(" ")[0], width=width), context=width)
    assert audit(right, chat.end_id).trained == 4
    with pytest.raises(DataError, match="in 4 of 4 examples the token that ends an answer, "):
        audit(fit(collated(given, pad=chat.end_id, width=width), context=width), chat.end_id)


def test_one_masked_end_is_enough_and_an_end_in_the_prompt_is_none():
    good = encoded([5, END, 6], [7, END])  # a user's turn ends with the same token
    assert audit(fit([good], context=8), END).masked == 0
    bad = encoded([5], [6, END, 7, END])
    bad.mask[2] = False
    with pytest.raises(DataError, match="in 1 of 2 examples"):
        audit(fit([good, bad], context=8), END)


def test_a_run_without_any_end_is_refused():
    with pytest.raises(DataError, match=r"not one of 1 examples ends .* \(1 were cut before it\)"):
        audit(fit([encoded([5], [6, 7, 8, END])], context=2), END)


def test_counts_add_up():
    found = Audit(examples=9, trained=3, cut=2, masked=1)
    assert found.without == 3
    assert "3 never had it" in str(dataclasses.replace(found, masked=0, cut=3))
