"""Run folders made by hand, and a reader of the pages that are made from them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "br", "img", "hr", "input"}
SETTINGS = {
    "model": {"n_layer": 2, "n_embd": 8, "vocab_size": 50, "n_positions": 16},
    "training": {"steps": 100, "batch_size": 4, "context": 16, "lr": 0.01},
}


def make_run(
    folder: Path,
    rows: Iterable[dict | str],
    *,
    settings: object = SETTINGS,
    samples: Iterable[dict] = (),
    speed: Iterable[dict] = (),
) -> Path:
    """A run folder; a row that is a text stands in the log as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    for name, more in (("samples.jsonl", samples), ("speed.jsonl", speed)):
        if text := "".join(json.dumps(row) + "\n" for row in more):
            (folder / name).write_text(text, encoding="utf-8")
    return folder


@dataclass
class Picture:
    """One chart: its attributes, the points of each path in the units of the data, its titles."""

    data: dict[str, str]
    paths: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """Every tag, attribute and text of a page; fails where a tag is not closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.pictures: dict[str, Picture] = {}
        self.text = ""
        self.picture: Picture | None = None
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in values.items()]
        if tag not in VOID:
            self.open.append(tag)
        if "data-metric" in values:
            self.picture = self.pictures[values["data-metric"]] = Picture(values)
        elif tag == "path" and self.picture and "grid" not in values["class"]:
            self.picture.paths[values["class"]] = points(self.picture, values["d"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "svg":
            self.picture = None

    def handle_data(self, data):
        if self.open[-1:] == ["title"] and self.picture:
            self.picture.titles.append(data)
        elif "style" not in self.open:
            self.text += data


def points(picture: Picture, path: str) -> list[tuple[float, float]]:
    """The points of a path, from the SVG's coordinates back to steps and values."""
    data = picture.data
    assert data["viewbox"] == "0 0 1000 300"
    x_low, x_high = map(float, data["data-x"].split())
    y_low, y_high = map(float, data["data-y"].split())
    places = [place.split() for place in path.replace("h0", "").replace("M", "L").split("L")[1:]]
    found = []
    for across, down in places:
        x = x_low + (x_high - x_low) * float(across) / 1000
        share = 1 - float(down) / 300
        if data["data-log"] == "1":
            found.append((x, y_low * (y_high / y_low) ** share))
        else:
            found.append((x, y_low + (y_high - y_low) * share))
    return found
