"""The mask viewer: what a model will learn from a row, from the very tensors it is given.

Most of what goes wrong in fine-tuning goes wrong here and shows in no curve: an answer that is not
learned, a prompt that is, an end token lost, a neighbour seen. So nothing is taken from the
conversations: the tokens are the inputs, a token is learned if it is the target of the place before
it, and positions are those that the model computes.

Letters: B rows, T places in a row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from cleangpt2.model.documents import document_positions
from cleangpt2.report.document import document
from cleangpt2.report.markup import escape
from cleangpt2.sft.packing import PADDING, Batch
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.pieces import place
from cleangpt2.training.step import IGNORED


@dataclass(frozen=True, slots=True)
class Place:
    """One token of a row."""

    id: int
    text: str
    position: int | None
    """Where the model believes it to stand; ``None`` for a target behind the last input."""
    is_learned: bool
    """Whether it is the target of the place before it."""
    target: int | None
    """The id that is learned here, to follow it; ``None`` if nothing is."""
    is_control: bool
    """Whether it is one token of the template's, and not text that looks like one."""


@dataclass(frozen=True, slots=True)
class Document:
    """The tokens of one example."""

    number: int
    """Its number in the row, from 0."""
    places: list[Place]
    is_cut: bool
    """Whether the example was too long, and its end is missing."""

    @property
    def inputs(self) -> int:
        """Places that it takes in the row."""
        return sum(place.position is not None for place in self.places)

    @property
    def learned(self) -> int:
        """Tokens that are learned."""
        return sum(place.is_learned for place in self.places)

    @property
    def strays(self) -> list[Place]:
        """Places whose target is another token than the one that follows: a wrong row."""
        return [
            here
            for here, after in pairwise(self.places)
            if here.target is not None and not after.is_learned
        ]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a batch."""

    documents: list[Document]
    padding: int
    """Places that hold nothing."""

    def __str__(self) -> str:
        """Its figures in words."""
        count, places = len(self.documents), sum(d.inputs for d in self.documents)
        learned = sum(d.learned for d in self.documents)
        return (
            f"{count} example{'' if count == 1 else 's'} in {places:,} places, {learned:,} "
            f"tokens learned, {self.padding:,} places of padding"
        )


def read(batch: Batch, tokenizer: Tokenizer, cut: Sequence[Sequence[bool]] = ()) -> list[Row]:
    """The rows of a batch, token by token.

    Args:
        batch: What the trainer gives to the model.
        tokenizer: Knows the texts of the ids.
        cut: Of each row's examples, whether their end is missing.
    """
    positions = document_positions(batch.documents)
    columns = (batch.inputs, batch.targets, batch.documents, positions)
    rows = []
    for number, row in enumerate(zip(*(tensor.tolist() for tensor in columns), strict=True)):
        places = list(zip(*row, strict=True))
        lost = cut[number] if number < len(cut) else ()
        documents = [
            Document(which, _places(list(found), tokenizer), which < len(lost) and lost[which])
            for which, found in groupby(places, key=lambda place: place[2])
            if which != PADDING
        ]
        rows.append(Row(documents, sum(document == PADDING for _, _, document, _ in places)))
    return rows


def _places(found: list[tuple[int, int, int, int]], tokenizer: Tokenizer) -> list[Place]:
    """The tokens of a document, and at its end the target that is no input any more."""
    targets = [None if target == IGNORED else target for _, target, _, _ in found]
    before = [None, *targets]
    ids = [id for id, *_ in found]
    positions: list[int | None] = [position for *_, position in found]
    if targets[-1] is not None:
        ids, positions, targets = [*ids, targets[-1]], [*positions, None], [*targets, None]
    names, controls = texts(ids, tokenizer), set(tokenizer.special_tokens.values())
    return [
        Place(id, name, position, learned == id, target, id in controls)
        for id, name, position, learned, target in zip(
            ids, names, positions, before, targets, strict=False
        )
    ]


def texts(ids: Iterable[int], tokenizer: Tokenizer) -> list[str]:
    """The text of each token; parts of a character as their bytes."""
    return [piece.spelt for piece in place((id, tokenizer.token_bytes(id)) for id in ids)]


# --- as a page -------------------------------------------------------------------------------

_LEGEND = (
    '<p><span class="t learned">learned</span> tokens are targets: the model is to say them after '
    'all that stands before them in their own box. <span class="t">Others</span> it only reads. '
    "Below each token is its position, and the number in its hint is its id; a token without a "
    "position is a last target, which the model never reads.</p>"
)


def page(rows: Sequence[Row], title: str = "What the model learns") -> str:
    """The rows as an HTML page."""
    parts = [f"<h1>{escape(title)}</h1>", _LEGEND]
    for number, row in enumerate(rows, start=1):
        parts.append(f'<h2>Row {number}</h2>\n<p class="dim">{escape(row)}</p>')
        parts.append('<div class="row">')
        parts += [_box(one) for one in row.documents]
        if row.padding:
            parts.append(f'<div class="padding">{row.padding:,} places of padding</div>')
        parts.append("</div>")
    return document(title, "\n".join(parts), styles=("page", "tokens"))


def described(one: Document) -> str:
    """What is to be said of an example: its positions, what is learned, what is wrong."""
    said = f"example {one.number + 1}: positions 0 to {one.inputs - 1}, {one.learned:,} learned"
    if one.is_cut:
        said += "; CUT: it was too long, and its end is missing"
    for stray in one.strays:
        said += f"; WRONG: after position {stray.position} the target is id {stray.target}"
    return said


def _box(one: Document) -> str:
    tokens = "".join(map(_token, one.places))
    cut = '<span class="warning">cut here</span>' if one.is_cut else ""
    return (
        f'<section class="document" data-document="{one.number}">\n'
        f"<h3>{escape(described(one))}</h3>\n"
        f'<div class="tokens" dir="ltr">{tokens}{cut}</div>\n</section>'
    )


def _token(place: Place) -> str:
    """A token over its position; a line of the text ends where one ends."""
    target = "" if place.target is None else f' data-target="{place.target}"'
    position = "" if place.position is None else str(place.position)
    where = f' data-position="{position}"' if position else ""
    kind = "t learned" if place.is_learned else "t"
    kind += " control" if place.is_control else ""
    said = f"id {place.id}, {'learned' if place.is_learned else 'read only'}"
    text, line_end = escape(place.text.replace("\n", "↵")), "<br>" if "\n" in place.text else ""
    return (
        f'<span class="{kind}" title="{said}" data-id="{place.id}"{where}{target}>'
        f"{text}<small>{position or '–'}</small></span>{line_end}"
    )
