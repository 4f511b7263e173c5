"""The files of a vocabulary, in the layout of GPT-2 on the Hugging Face hub.

    merges.txt              one merge a line, in the order learned; all else follows from it
    vocab.json              token to id
    tokenizer_config.json   the special tokens, and settings that other libraries read
    chat_template.jinja     where newer folders keep the chat template instead; read, not written

A folder with only a ``tokenizer.json``, where the ``tokenizers`` library keeps the three as
one, is read as well, and so are OpenAI's ``vocab.bpe`` and ``encoder.json``, which are the first
two under other names.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cleangpt2 import lineage
from cleangpt2.errors import OutputError, TokenizerError
from cleangpt2.files import read_text, written_aside
from cleangpt2.hub import ALIASES, Source
from cleangpt2.tokenizer.bpe import Merge
from cleangpt2.tokenizer.vocabulary import (
    END_OF_TEXT,
    PAD,
    Vocabulary,
    format_merges,
    parse_merges,
    show,
)

# All sizes of GPT-2 share one vocabulary; this is the hash that OpenAI's own loader checks.
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
GPT2_SETTINGS = {"model_max_length": 1024}

T = TypeVar("T")

_OPENAI = ("vocab.bpe", "encoder.json")
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
_KEPT = (*_ROLES, "model_max_length", "chat_template")
_TEMPLATE_FILE = "chat_template.jinja"


def read_vocabulary(source: Source) -> Vocabulary:
    """The vocabulary of a model, from whichever of its files there are.

    Raises:
        TokenizerError: There is none, or its files are damaged or contradict each other.
        CleanGPT2Error: A file cannot be had; see ``Source.file``.
    """
    if source.repo in ALIASES.values():  # one small file says it all, and its hash is known
        merges = parse_merges(_text(source.file("merges.txt", sha256=GPT2_MERGES_SHA256)))
        return Vocabulary.from_merges(merges, settings=GPT2_SETTINGS)

    settings, special = _parsed(source, "tokenizer_config.json", _parse_config)
    if settings.pop("add_prefix_space", None):
        raise TokenizerError(
            f"{source.name!r} sets add_prefix_space, which puts a space before every text; "
            "only GPT-2's own setting, false, is supported"
        )
    if (path := source.file("merges.txt", optional=True)) is not None:
        merges = parse_merges(_text(path), str(path))
        table = _parsed(source, "vocab.json", _parse_ids)
        added = _parsed(source, "added_tokens.json", _parse_ids)
    elif source.file("tokenizer.json", optional=True) is not None:
        merges, table, added = _parsed(source, "tokenizer.json", _parse_tokenizer_json)
    elif source.repo is None and (path := source.local(_OPENAI[0])) is not None:
        merges = parse_merges(_text(path), str(path))
        table, added = _parsed(source, _OPENAI[1], _parse_ids), {}
    else:
        if source.repo is not None:
            source.file("merges.txt")  # raises: it says whether the hub or the file is missing
        raise TokenizerError(
            f"{source.name!r} has no tokenizer: neither merges.txt nor tokenizer.json; "
            "give a folder that has one, or put one there with Tokenizer.save"
        )
    mapped, _ = _parsed(source, "special_tokens_map.json", _parse_config)
    if (path := source.file(_TEMPLATE_FILE, optional=True)) is not None:
        settings["chat_template"] = _text(path)  # the one that other libraries take, too
    settings = {key: value for key, value in (mapped | settings).items() if value is not None}
    return _assemble(merges, table, added | special, settings, source.name)


def has_vocabulary(source: Source) -> bool:
    """Whether a folder has files that `read_vocabulary` would read."""
    return any(source.local(name) for name in ("merges.txt", "tokenizer.json", _OPENAI[0]))


def write_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Write the three files and the folder's lineage; a failure leaves the folder as it was.

    Raises:
        OutputError: The folder cannot be written, or see `vocabulary_files`.
    """
    contents = vocabulary_files(vocabulary, folder)
    with written_aside(folder) as scratch:
        for name, content in contents.items():
            (scratch / name).write_text(content, encoding="utf-8", newline="\n")
        lineage.write(scratch, folder)


def vocabulary_files(vocabulary: Vocabulary, folder: Path) -> dict[str, str]:
    """The names and contents of the three files, if they can stand in `folder`.

    Raises:
        OutputError: Another library would read an old ``tokenizer.json`` or
            ``chat_template.jinja`` there instead.
    """
    template = folder / _TEMPLATE_FILE
    is_old = template.exists() and _text(template) != vocabulary.settings.get("chat_template")
    if is_old or (folder / "tokenizer.json").exists():
        raise OutputError(
            f"{folder} holds a {_TEMPLATE_FILE if is_old else 'tokenizer.json'}, which other "
            "libraries would read instead of the new files; remove it or choose another folder"
        )
    special = vocabulary.special
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(i): {"content": name, **flags, "special": True} for name, i in special.items()
        },
        **token_roles(vocabulary),
        **vocabulary.settings,
    }
    return {
        "merges.txt": format_merges(vocabulary.merges),
        "vocab.json": json.dumps(vocabulary.shown()),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }


def token_roles(vocabulary: Vocabulary) -> dict[str, str | None]:
    """The special tokens that other libraries know by a name such as ``eos_token``."""
    special = vocabulary.special
    roles = dict.fromkeys(_ROLES, END_OF_TEXT if END_OF_TEXT in special else None)
    roles |= {"pad_token": PAD if PAD in special else None}
    return roles | {
        role: vocabulary.settings[role] for role in _ROLES if role in vocabulary.settings
    }


def _parse_ids(table: dict) -> dict[str, int]:
    """Token to id, as in ``vocab.json`` and ``added_tokens.json``."""
    if wrong := [i for i in table.values() if type(i) is not int or not 0 <= i < 1 << 31]:
        raise ValueError(f"{wrong[0]!r} is no id, which is a whole number from 0")
    return table


def _parse_config(config: dict) -> tuple[dict[str, Any], dict[str, int]]:
    """What we keep of the settings of a ``tokenizer_config.json``, and its special tokens."""
    settings = {key: config[key] for key in (*_KEPT, "add_prefix_space") if key in config}
    roles = {role: _token_text(settings[role]) for role in _ROLES if settings.get(role) is not None}
    if (template := config.get("chat_template")) is not None:
        settings["chat_template"] = _default_template(template)
    listed = config.get("added_tokens_decoder") or {}
    special = {_token_text(token): int(i) if i.isdecimal() else i for i, token in listed.items()}
    return settings | roles, _parse_ids(special)


def _default_template(template: Any) -> str:
    """The chat template; some files have several, each with a name, as for calling tools."""
    if isinstance(template, list):
        template = {one["name"]: one["template"] for one in template}.get("default")
    if not isinstance(template, str):
        raise ValueError("its chat_template is no text, and no list with one called default")
    return template


def _token_text(token: Any) -> str:
    """The text of a special token, which some files wrap into an object."""
    text = token["content"] if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no text of a token")
    return text


def _parse_tokenizer_json(whole: dict) -> tuple[list[Merge], dict[str, int], dict[str, int]]:
    """Merges, ``vocab.json`` and added tokens of a ``tokenizer.json``, if it is like GPT-2's."""
    model, splitter = whole.get("model") or {}, whole.get("pre_tokenizer") or {}
    needs = {
        "a BPE model": model.get("type", "BPE") == "BPE" and "merges" in model,
        "no normalizer": whole.get("normalizer") is None,
        "a ByteLevel pre_tokenizer": splitter.get("type") == "ByteLevel",
        "add_prefix_space false": not splitter.get("add_prefix_space"),
        "use_regex true": splitter.get("use_regex", True),
    }
    if missing := [need for need, met in needs.items() if not met]:
        raise ValueError(f"it is not a tokenizer like GPT-2's, which has {missing[0]}")
    lines = [line if isinstance(line, str) else " ".join(line) for line in model["merges"]]
    added = {_token_text(token): token["id"] for token in whole.get("added_tokens") or []}
    merges = parse_merges("\n".join(lines), "model.merges")
    return merges, _parse_ids(model.get("vocab") or {}), _parse_ids(added)


def _assemble(
    merges: list[Merge], table: dict, added: dict, settings: dict[str, Any], where: str
) -> Vocabulary:
    """Check that merges, ids and special tokens agree; ``table`` is ``vocab.json`` or empty."""
    ids = Vocabulary.from_merges(merges, ()).ids
    special = added or {END_OF_TEXT: len(ids)}
    if table:
        shown = {token: show(token) for token in ids}
        if absent := [text for text in shown.values() if text not in table]:
            raise _contradiction(where, f"vocab.json lacks {absent[0]!r}, which a merge makes")
        ids = {token: table[text] for token, text in shown.items()}
        rest = table.keys() - set(shown.values())
        declared = {*added, *(settings[role] for role in _ROLES if role in settings)}
        if strange := sorted(name for name in rest - declared if not _looks_special(name)):
            raise _contradiction(
                where, f"no merge makes {strange[0]!r} of vocab.json, and no file calls it special"
            )
        special = {name: table[name] for name in rest} | added

    all_ids = [*ids.values(), *special.values()]
    if len(set(all_ids)) < len(all_ids):
        raise _contradiction(where, "two tokens have the same id")
    learned = [ids[left + right] for left, right in merges]
    if learned != sorted(learned):
        raise _contradiction(where, "the ids in vocab.json do not rise in the order of merges.txt")
    special = dict(sorted(special.items(), key=lambda item: item[1]))
    try:
        return Vocabulary(merges, ids, special, settings)
    except TokenizerError as error:
        raise _contradiction(where, str(error)) from None


def _contradiction(where: str, what: str) -> TokenizerError:
    return TokenizerError(
        f"the tokenizer of {where!r} is damaged, or its files are of different ones: {what}"
    )


def _looks_special(name: str) -> bool:
    return len(name) > 2 and name[0] + name[-1] in ("<>", "[]")


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path} cannot be read as UTF-8 text ({error})") from None


def _parsed(source: Source, filename: str, parse: Callable[[dict], T]) -> T:
    """What ``parse`` makes of the JSON object in a file, or of an empty one if there is no file.

    ``parse`` takes the object for what it should be; whatever goes wrong, the file is to blame.
    """
    path = source.file(filename, optional=True)
    if path is None:
        return parse({})
    text = _text(path)
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        return parse(content)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} cannot be used: {error}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise TokenizerError(
            f"{path} is not laid out as a {filename} ({error!r}); is it damaged?"
        ) from None
