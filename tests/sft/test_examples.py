import numpy as np
import pytest

from cleangpt2.errors import DataError
from cleangpt2.sft.examples import fit
from tests.sft.lessons import END, encoded


def test_an_example_that_fits_stays_as_it_is():
    example = encoded([5, 6], [7, END])
    examples = fit([example], context=3)  # 4 ids are 3 inputs and 3 targets
    assert examples.rows[0].ids.tolist() == [5, 6, 7, END]
    assert examples.rows[0].mask.tolist() == [False, False, True, True]
    assert (examples.cut, examples.lost, examples.lengths, examples.targets) == (
        (False,),
        (),
        [3],
        2,
    )


def test_a_longer_one_is_cut_and_counted_and_one_without_an_answer_is_left_out():
    given = [encoded([5, 6], [7, END]), encoded([5], [6, 7, END]), encoded([5, 6, 7], [8, END])]
    examples = fit(given, context=2)
    assert [row.ids.tolist() for row in examples.rows] == [[5, 6, 7], [5, 6, 7]]
    assert examples.numbers == (0, 1) and examples.cut == (True, True) and examples.lost == (2,)
    assert str(examples) == (
        "2 examples, 3 tokens to learn; 2 longer than 2 tokens and cut, so that their end is "
        "missing; 1 left out, of whose answers nothing is left"
    )


def test_losing_nothing_but_a_prompts_tail_is_no_cut():
    late = encoded([5], [6, END])
    late.mask[2] = False  # as the line break behind chatml's end of a turn
    assert fit([late], context=1).cut == (False,)


def test_all_tokens_but_the_first_are_learned_on_demand():
    examples = fit([encoded([5, 6], [7, END])], context=8, train_on="all")
    assert examples.rows[0].mask.tolist() == [False, True, True, True]


def test_the_first_token_of_a_text_is_no_target():
    assert fit([encoded([], [7, 8, END])], context=8).rows[0].mask.tolist() == [False, True, True]


def test_nothing_left_is_refused():
    with pytest.raises(DataError, match="none of the 1 examples has an answer within 2 tokens"):
        fit([encoded([5, 6, 7], [8, END])], context=2)


def test_the_fingerprint_knows_ids_masks_and_order():
    one, other = encoded([5, 6], [7, END]), encoded([5], [6, 7, END])
    prints = {
        fit(given, context=8).fingerprint()
        for given in ([one, other], [other, one], [one], [other], [encoded([5, 6], [8, END])])
    }
    assert len(prints) == 5
    again = fit([encoded([5, 6], [7, END]), other], context=8)
    assert again.fingerprint() == fit([one, other], context=8).fingerprint()
    assert again.rows[0].ids.dtype == np.int32
