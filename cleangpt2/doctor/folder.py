"""One model: where it comes from, whether its files are whole, and whether it runs."""

import contextlib
import math
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from cleangpt2 import lineage
from cleangpt2.doctor.finding import Finding, guarded
from cleangpt2.errors import CheckpointError, CleanGPT2Error
from cleangpt2.hub import BUNDLED, Source, check_content, locate
from cleangpt2.model.convert.formats import find_checkpoint, open_model
from cleangpt2.model.convert.tokenizers import tokenizer_of
from cleangpt2.model.pretrained import load
from cleangpt2.model.summary import show_bytes, summarise
from cleangpt2.model.weights import weight_files
from cleangpt2.tokenizer.files import GPT2_MERGES_SHA256

SECTION = "model"

_AGAIN = "delete the file and copy or download it again"
_GPT2_TOKENS = 50257

HASHES = ("lineage", "published hashes")
"""The checks of files against what was written, here or on the hub."""

TEXTS = (
    "A day without laughter is a day wasted.",
    "  two spaces, a tab\tand\r\nnew lines\n\n",
    "naïve café, Καλημέρα, 你好, 🤗🏽, e\u0301",
    "<|endoftext|> as plain text, 1234567890, I'll've it's",
    "\x00\x7f\u200b\ufffd",
)
"""Texts that a tokenizer must give back as they were."""


def folder(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[Finding]:
    """All that can be said of the model `name`; what the hub has of it is downloaded."""
    source = locate(name)
    place = _fetch(source)
    where = "bundled with cleangpt2" if name in BUNDLED else f"in {place.absolute()}"
    yield Finding(SECTION, "source", "ok", f"{name!r} is {where}")
    has_failed = False
    for finding in _content(name, source, place):
        # A file that only is not the one that was written may still hold a fine model.
        has_failed |= finding.verdict == "failed" and finding.subject not in HASHES
        yield finding
    if has_failed:
        detail = "what failed above has to be mended first"
        yield Finding(SECTION, "runs", "not run", detail)
    else:
        yield from guarded(SECTION, "runs", partial(_runs, name, device, dtype))


def _content(name: str, source: Source, place: Path) -> Iterator[Finding]:
    """The checks of files, those that fit the kind of model."""
    if (checkpoint := find_checkpoint(source)) is not None:
        detail = f"{checkpoint.name}, of another program; `cleangpt2 convert` makes a folder of it"
        yield Finding(SECTION, "files", "ok", detail)
    else:
        yield from guarded(SECTION, "files", partial(_files, place))
        # Of a repository only the files that are needed are here; the hub vouches for them.
        if source.repo is not None:
            yield from guarded(SECTION, HASHES[1], partial(_published_hashes, place))
        else:
            yield from guarded(SECTION, HASHES[0], partial(_lineage, place))
    yield from guarded(SECTION, "weights", partial(_weights, name, source))
    yield from guarded(SECTION, "tokenizer", partial(_tokenizer, name, place))


def _fetch(source: Source) -> Path:
    """The folder that holds the model, downloaded if it has to be."""
    if source.folder is not None:
        return source.folder
    config = source.file("config.json")
    with contextlib.suppress(CleanGPT2Error):  # what is wrong, the checks of the files will say
        weight_files(source)
        tokenizer_of(source)
    return config.parent


def _files(place: Path) -> Iterator[Finding]:
    """The files that make a model, and those that are wanting."""
    names = [path.name for path in lineage.model_files(place)]
    yield Finding(SECTION, "files", "ok", ", ".join(names) or f"none in {place}")
    groups = {
        "config.json": ("config.json",),
        "weights": ("model.safetensors", "pytorch_model.bin"),
        "tokenizer files": ("merges.txt", "tokenizer.json"),
    }
    for what, choices in groups.items():
        # The index of shards begins with the name of the whole.
        if not any(name.startswith(choice) for choice in choices for name in names):
            detail = f"{place} has no {' or '.join(choices)}"
            yield Finding(SECTION, what, "failed", detail, f"copy {what} of this model there")


def _lineage(place: Path) -> Iterator[Finding]:
    """The files beside what ``lineage.json`` says was written."""
    written = lineage.read(place)
    if written is None:
        detail = f"no {lineage.LINEAGE}: the files were not written by cleangpt2"
        yield Finding(SECTION, "lineage", "not run", detail)
        return
    found = lineage.differences(place, written)
    for name, what in found.items():
        detail = f"{name} {what}: it was changed or damaged after it was written"
        yield Finding(SECTION, "lineage", "failed", detail, f"{name}: {_AGAIN}")
    if strange := sorted({path.name for path in lineage.model_files(place)} - written.files.keys()):
        detail = f"{', '.join(strange)} came later and can be checked against nothing"
        yield Finding(SECTION, "lineage", "warning", detail)
    if not found:
        parent = f" from {written.parent.name}" if written.parent else ""
        detail = f"made by {written.made_by}{parent}; {len(written.files)} files are as written"
        yield Finding(SECTION, "lineage", "ok", detail)


def _published_hashes(place: Path) -> Iterator[Finding]:
    """The hub's files beside their hashes, which are the names the cache keeps contents under."""
    checked, unnamed = [], []
    for path in lineage.model_files(place):
        published = path.resolve().name
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", published):
            unnamed.append(path.name)
            continue
        try:
            check_content(path, published)
            checked.append(path.name)
        except CheckpointError as error:
            # The content itself: where only its link is gone, the hub's client links it again.
            advice = f"{path.resolve()}: {_AGAIN}"
            yield Finding(SECTION, HASHES[1], "failed", f"{path.name}: {error}", advice)
    if checked:
        detail = f"{', '.join(checked)}: as the hub lists them"
        yield Finding(SECTION, "published hashes", "ok", detail)
    if unnamed:
        detail = f"this cache does not keep the hashes of {', '.join(unnamed)}"
        yield Finding(SECTION, "published hashes", "not run", detail)


def _weights(name: str, source: Source) -> Iterator[Finding]:
    """Headers, sizes, names and shapes; then every number."""
    summary = summarise(name)
    with open_model(source, local=True) as opened:
        if not opened.files:
            return  # said among the files
        size = sum(path.stat().st_size for path in opened.files)
        detail = f"{len(opened.tensors)} tensors, {show_bytes(size)}, fit the {opened.described_by}"
        yield Finding(SECTION, "weights", "ok", f"{detail}: {summary.total:,} parameters")
        broken, largest = [], 0.0
        for key, stored in opened.tensors.items():
            tensor = stored.read()
            if number := int((~torch.isfinite(tensor)).sum()):
                broken.append(f"{key} ({number:,} of {tensor.numel():,} numbers)")
            elif tensor.numel():
                largest = max(largest, float(tensor.abs().max()))
    if broken:
        more = ", ..." if len(broken) > 3 else ""
        detail = f"NaN or infinite: {', '.join(broken[:3])}{more}"
        advice = "take an earlier checkpoint: training that diverges leaves such weights"
        yield Finding(SECTION, "numbers", "failed", detail, advice)
    else:
        yield Finding(SECTION, "numbers", "ok", f"all finite, the largest is {largest:.3g}")


def _tokenizer(name: str, place: Path) -> Iterator[Finding]:
    """Whose vocabulary it is, and whether texts come back as they were."""
    tokenizer = tokenizer_of(locate(name))
    detail = f"{tokenizer.vocab_size:,} tokens"
    # OpenAI's own name for it comes second, as in reading.
    if merges := next(filter(Path.is_file, (place / "merges.txt", place / "vocab.bpe")), None):
        sha256 = lineage.fingerprint(merges).sha256
        is_gpt2 = sha256 == GPT2_MERGES_SHA256
        detail += ", GPT-2's own" if is_gpt2 else f", {merges.name} has sha256 {sha256[:12]}..."
        if not is_gpt2 and tokenizer.vocab_size == _GPT2_TOKENS:
            what = f"{detail}: as many as GPT-2 has, but not GPT-2's"
            advice = f"if this is to be GPT-2's vocabulary, merges.txt is wrong: {_AGAIN}"
            yield Finding(SECTION, "tokenizer", "warning", what, advice)
            return
    yield Finding(SECTION, "tokenizer", "ok", detail)
    for text in TEXTS:
        if (back := tokenizer.decode(tokenizer.encode(text))) != text:
            what = f"{text!r} comes back as {back!r}"
            yield Finding(SECTION, "round trip", "failed", what, f"merges.txt: {_AGAIN}")
            return
    yield Finding(SECTION, "round trip", "ok", f"{len(TEXTS)} texts come back as they were")


@torch.no_grad()
def _predict(name: str, device: torch.device, dtype: torch.dtype) -> tuple[bool, float, float]:
    """Whether all logits on an English text are finite, its loss, and that of guessing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an attention path: the devices' section says it
        model, tokenizer = load(name, device=device, dtype=dtype)
    ids = model.check(tokenizer.encode(TEXTS[0])[: model.config.n_positions])
    logits = model(ids).float()
    loss = F.cross_entropy(logits[:-1], ids[1:])
    return bool(logits.isfinite().all()), float(loss), math.log(tokenizer.vocab_size)


def _runs(name: str, device: torch.device, dtype: torch.dtype) -> Iterator[Finding]:
    """One pass over a sentence."""
    is_finite, loss, guessing = _predict(name, device, dtype)
    where = f"on {device} in {str(dtype).removeprefix('torch.')}"
    detail = f"an English sentence has a loss of {loss:.2f} a token, {guessing:.2f} by guessing"
    if not is_finite:
        advice = "use --dtype float32 or bfloat16, which hold larger numbers than float16"
        yield Finding(SECTION, "runs", "failed", f"logits are NaN or infinite {where}", advice)
    elif loss > guessing:
        advice = "the weights are untrained, or of another vocabulary"
        yield Finding(SECTION, "runs", "warning", f"{detail} ({where})", advice)
    else:
        yield Finding(SECTION, "runs", "ok", f"{detail} ({where})")
