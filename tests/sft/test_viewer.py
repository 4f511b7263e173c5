"""The mask viewer shows the tensors of a batch: all of them, and nothing else."""

from html.parser import HTMLParser

import pytest
import torch

from cleangpt2.cli.mask import CLOSES, OPENS, print_rows
from cleangpt2.model.documents import document_positions
from cleangpt2.sft import viewer
from cleangpt2.sft.batches import Batches
from cleangpt2.sft.config import SFTConfig
from cleangpt2.sft.examples import fit
from cleangpt2.sft.packing import PADDING, Batch
from cleangpt2.tokenizer.chat import Message, load_template
from cleangpt2.training.step import IGNORED
from tests.report.reading import Page
from tests.stubs import small_tokenizer

HOSTILE = 'a <b onclick="x">\n&amp; <|im_end|> \x1b[2J caf\xe9 \u6771'
CONTEXT = 200


@pytest.fixture(scope="module")
def chat():
    return load_template("chatml", small_tokenizer())


@pytest.fixture(scope="module", params=["bfd", "pad"])
def shown(request, chat):
    """A batch as the trainer gets it, and which of its examples were cut."""
    answers = ["Yes.", HOSTILE, "the dog was happy " * 90, "No.", "The girl had a dog."]
    conversations = [[Message("user", f"{HOSTILE} {i}"), Message("assistant", answer)]
                     for i, answer in enumerate(answers)]  # fmt: skip
    conversations.append([Message("user", "a"), Message("assistant", "b")] * 2)
    examples = fit(chat.encode_batch(conversations), context=CONTEXT)
    batches = Batches(examples, SFTConfig(batch_size=6, context=CONTEXT, packing=request.param))
    batch = batches(0)
    cut = [[examples.cut[i] for i in batches.rows[row]] for row in batches.numbers(0)]
    assert sum(map(sum, cut)) == 1 and (request.param == "pad") == (batch.documents.max() == 0)
    return batch, cut


class Tokens(HTMLParser):
    """The tensors that a page shows: of each row the ids, targets, documents and positions."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.document, self.text, self.learned = [], None, "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get("class") == "row":
            self.rows.append([])
        if tag == "section":
            self.document = int(values["data-document"])
        if "data-id" in values:
            id, position = int(values["data-id"]), values.get("data-position")
            self.learned.append((id, "learned" in values["class"]))
            if position is not None:
                target = int(values.get("data-target", IGNORED))
                self.rows[-1].append((id, target, self.document, int(position)))


def test_the_page_holds_the_tensors_of_the_batch(shown, chat):
    batch, cut = shown
    page = viewer.page(viewer.read(batch, chat.tokenizer, cut))
    found = Tokens(page)
    positions = document_positions(batch.documents)
    assert len(found.rows) == len(batch.inputs)
    for row, places in enumerate(found.rows):
        filled = batch.documents[row] != PADDING
        tensors = (batch.inputs, batch.targets, batch.documents, positions)
        columns = [tensor[row][filled].tolist() for tensor in tensors]
        assert list(zip(*columns, strict=True)) == places
    targets = batch.targets[batch.targets != IGNORED].tolist()
    assert sorted(id for id, is_learned in found.learned if is_learned) == sorted(targets)


def test_the_page_is_well_formed_harmless_and_asks_for_nothing(shown, chat):
    page = Page(viewer.page(viewer.read(shown[0], chat.tokenizer, shown[1])))
    assert not {"script", "link", "img", "b"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name in ("src", "href", "onclick")]
    assert "\x1b" not in page.text and page.text.count("cut here") == 1


def test_the_terminal_marks_what_is_learned_without_colour(shown, chat, capsys):
    batch, cut = shown
    rows = viewer.read(batch, chat.tokenizer, cut)
    print_rows(rows)
    out = capsys.readouterr().out
    learned = [part.partition(CLOSES)[0] for part in out.split(OPENS)[1:-1]]
    expected = [p.text for row in rows for d in row.documents for p in d.places if p.is_learned]
    assert "".join(learned) == "".join(expected).replace("\n", "↵")
    assert out.count("CUT: it was too long") == 1 and out.count("  example ") == 6
    assert sum(map(len, expected)) > 100


def test_text_that_looks_like_a_control_token_is_told_from_one(shown, chat):
    names = chat.tokenizer.special_tokens
    for row in viewer.read(shown[0], chat.tokenizer):
        for place in (place for one in row.documents for place in one.places):
            assert place.is_control == (place.id in names.values())


def test_padding_and_figures(shown, chat):
    rows = viewer.read(shown[0], chat.tokenizer, shown[1])
    documents = shown[0].documents
    assert [row.padding for row in rows] == (documents == PADDING).sum(1).tolist()
    learned = (shown[0].targets != IGNORED).sum(1).tolist()
    assert [sum(d.learned for d in row.documents) for row in rows] == learned


def test_a_target_that_is_not_the_next_token_is_called_wrong(chat):
    ids = torch.tensor([[5, 6, 7]])
    batch = Batch(ids, torch.tensor([[IGNORED, 9, 8]]), torch.zeros_like(ids))
    [row] = viewer.read(batch, chat.tokenizer)
    [one] = row.documents
    assert [place.is_learned for place in one.places] == [False, False, False, True]
    assert "WRONG: after position 1 the target is id 9" in viewer.described(one)
    assert "WRONG" in viewer.page([row])
