import torch
from hypothesis import given
from hypothesis import strategies as st

from cleangpt2.data.boundaries import document_mask, document_numbers, document_positions


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=4))
def test_masks_and_positions_are_those_of_a_plain_loop(ends):
    ids = torch.where(torch.tensor(ends), 0, 5)
    documents = document_numbers(ids, eos_id=0)
    positions, mask = document_positions(documents), document_mask(documents)
    for row in range(len(ids)):
        begin = 0
        for query in range(12):
            begin = query if ids[row, query] == 0 else begin
            assert positions[row, query] == query - begin
            seen = [key for key in range(12) if mask[row, 0, query, key]]
            assert seen == list(range(begin, query + 1))
