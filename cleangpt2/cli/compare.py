"""``cleangpt2 compare``: the same prompts and random numbers through several models."""

import json
import secrets
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from cleangpt2.cli import terminal
from cleangpt2.cli.text_input import given_or_piped
from cleangpt2.errors import ConfigError, DataError
from cleangpt2.sampler.config import SamplingConfig

if TYPE_CHECKING:
    from cleangpt2.completion.prompts import Prompt
    from cleangpt2.sft.compare import Comparison, Contestant
    from cleangpt2.tokenizer.chat import ChatTemplate

EXAMPLE = """
    cleangpt2 compare story tiny
    cleangpt2 compare gpt2 runs/mine/model --prompt "Name a colour." --template alpaca
    cleangpt2 compare story runs/a/model runs/b/model --prompts prompts.txt --out compared.html
"""

DEFAULT_PROMPT = "Once upon a time"
MOST_MODELS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which models, and what they are asked."""

    models: tyro.conf.Positional[tuple[str, ...]]
    """Two to four models: bundled, published, hub ids, or folders of models or adapters. The first
    is what the others are compared with."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A prompt; may be given several times."""
    prompts: Path | None = None
    """File of prompts, one on each line; they may also be piped in."""
    template: str | None = None
    """Chat template: plain, alpaca, chatml or a file. Left out, that of the first model that
    brings one; models without see prompts as they are."""
    raw: bool = False
    """Give the prompts as they are, whatever template a model brings."""
    temperature: float = 0.8
    """Below 1 bolder in its favourites, above 1 more varied; 0 is greedy."""
    top_k: int | None = 50
    """Choose among the k likeliest tokens only; `None` allows every token."""
    top_p: float | None = None
    """Choose among the fewest tokens whose probabilities reach p (nucleus); `None`: all."""
    max_new_tokens: int = 60
    """Most tokens of an answer."""
    seed: int | None = None
    """Fixes the random numbers; left out, some are drawn and the seed is told."""
    tokens: bool = False
    """Print the table of every token too, also where colour shows the change."""
    out: Path | None = None
    """HTML page to write."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """auto (float32), float32, bfloat16, float16."""
    json: bool = False
    """Print one JSON object for each prompt instead of text."""

    def __post_init__(self) -> None:
        if not 2 <= len(self.models) <= MOST_MODELS:
            raise ConfigError(
                f"{len(self.models)} models to compare: name 2 to {MOST_MODELS}, as in "
                "`cleangpt2 compare story tiny`"
            )
        if self.raw and self.template is not None:
            raise ConfigError("raw and template contradict each other: give one of them")


def run(options: Options) -> None:
    """Let the models answer, print what they say, and write the page."""
    seed = secrets.randbits(32) if options.seed is None else options.seed
    sampling = {name: getattr(options, name) for name in SETTINGS}
    config = SamplingConfig(**sampling, seed=seed)
    asked = questions(options)
    from cleangpt2.cli.side_by_side import print_comparison, print_legend
    from cleangpt2.model.pretrained import load
    from cleangpt2.report.document import check_document, write_document
    from cleangpt2.sft.compare import Contestant, check_vocabulary, compare
    from cleangpt2.sft.compare_page import page

    if options.out is not None:
        check_document(options.out)
    how = {"device": options.device, "dtype": options.dtype}
    contestants = [Contestant(name, *load(name, **how)) for name in options.models]
    check_vocabulary(contestants)
    template = None if options.raw else _template(options, contestants)
    stop_ids = [contestants[0].tokenizer.eos_id] if template is None else template.stop_ids
    prompts = [_prompt(text, contestants[0], template) for text in asked]
    found: list[Comparison] = []
    for comparison in compare(contestants, prompts, config=config, stop_ids=stop_ids):
        found.append(comparison)
        if options.json:
            print(json.dumps(asdict(comparison)), flush=True)
        else:
            heading = f"prompt {len(found)} of {len(prompts)}: {asked[len(found) - 1]}"
            print_comparison(comparison, heading, options.models, tokens=options.tokens)
    if not options.json:
        print_legend(options.models)
    if options.out is not None:
        said = f"{_how(config)}; {'no template' if template is None else template.name}"
        print(write_document(options.out, page(found, options.models, said)))
    elif sys.stderr.isatty():
        print(terminal.paint(f"[--seed {seed}]", "dim", sys.stderr), file=sys.stderr)


SETTINGS = ("temperature", "top_k", "top_p", "max_new_tokens")
"""The options that are settings of sampling."""


def questions(options: Options) -> list[str]:
    """The prompts, of the command line, a file or a pipe.

    Raises:
        DataError: The file cannot be read, or holds none.
    """
    found = list(options.prompt)
    if options.prompts is not None:
        try:
            found += _filled(options.prompts.expanduser().read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot read the prompts in {options.prompts}: {error}; give a text file with one "
                "on each line"
            ) from None
        if not found:
            raise DataError(f"{options.prompts} holds no prompt: write one on each line")
    return found or _filled((given_or_piped(None) or "").splitlines()) or [DEFAULT_PROMPT]


def _filled(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line.strip()]


def _template(options: Options, contestants: "list[Contestant]") -> "ChatTemplate | None":
    """The template asked for, or that of the first model that brings one."""
    from cleangpt2.tokenizer.chat import load_template

    first = contestants[0].tokenizer
    if options.template is not None:
        template = load_template(options.template, first)
        if template.tokenizer.vocab_size > first.vocab_size:
            raise ConfigError(
                f"the chat template {template.name} needs tokens that these models do not know: "
                "choose another, such as alpaca"
            )
        return template
    for one in contestants:
        if "chat_template" in one.tokenizer.vocabulary.settings:
            return load_template(None, one.tokenizer)
    return None


def _prompt(text: str, first: "Contestant", template: "ChatTemplate | None") -> "Prompt":
    from cleangpt2.completion.prompts import Prompt
    from cleangpt2.tokenizer.chat import Message

    if template is None:
        return Prompt.read(text, first.tokenizer)
    said = [Message("user", text)]
    return Prompt(template.render(said, add_generation_prompt=True), template.prompt(said))


def _how(config: SamplingConfig) -> str:
    """The settings of sampling in words."""
    parts = [f"seed {config.seed}", f"temperature {config.temperature:g}"]
    parts += [f"top-k {config.top_k}"] if config.top_k is not None else []
    parts += [f"top-p {config.top_p:g}"] if config.top_p is not None else []
    return ", ".join(parts)
