"""The files of a vocabulary: what is written, what is read, what is refused."""

import json
import shutil

import pytest

from cleangpt2.errors import OutputError, TokenizerError
from cleangpt2.tokenizer import Tokenizer, Vocabulary
from cleangpt2.tokenizer.vocabulary import show
from tests.tokenizer.conftest import TEXT

FILES = {"merges.txt", "vocab.json", "tokenizer_config.json", "lineage.json"}


@pytest.fixture
def folder(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "vocabulary")
    return tmp_path / "vocabulary"


def edit(path, change):
    """Apply ``change`` to the JSON object in a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(content) or content), encoding="utf-8")


def test_a_saved_tokenizer_comes_back_the_same(tokenizer, folder):
    again = Tokenizer.from_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    assert again.vocabulary.merges == tokenizer.vocabulary.merges
    assert again.special_tokens == tokenizer.special_tokens
    assert (again.eos_id, again.pad_id) == (tokenizer.eos_id, tokenizer.pad_id)
    assert again.encode(TEXT) == tokenizer.encode(TEXT)


def test_saving_what_was_read_changes_no_byte(folder, tmp_path):
    Tokenizer.from_pretrained(folder).save(tmp_path / "copy")
    for name in FILES:
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()


def test_files_are_utf8_with_plain_line_ends(folder, tokenizer):
    for name in FILES:
        assert b"\r" not in (folder / name).read_bytes()
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    assert lines[0] == "#version: 0.2"
    assert lines[1] == " ".join(map(show, tokenizer.vocabulary.merges[0]))
    assert lines[-1] == ""


def test_windows_line_ends_are_read(folder, tokenizer):
    merges = folder / "merges.txt"
    merges.write_bytes(merges.read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.from_pretrained(folder).vocabulary.merges == tokenizer.vocabulary.merges


def test_a_merge_of_number_signs_is_no_header(tmp_path):
    Tokenizer(Vocabulary.from_merges([(b"#", b"#")])).save(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).encode("##") == [256]


def test_merges_alone_are_a_vocabulary(folder, tokenizer):
    (folder / "vocab.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    alone = Tokenizer.from_pretrained(folder)
    assert alone.encode(TEXT) == tokenizer.encode(TEXT)
    assert alone.special_tokens == {"<|endoftext|>": 317}


def test_special_tokens_are_found_in_each_file_that_may_name_them(folder):
    (folder / "vocab.json").unlink()
    edit(
        folder / "tokenizer_config.json", lambda config: config.pop("added_tokens_decoder") and None
    )
    (folder / "added_tokens.json").write_text('{"</s>": 317, "PAD": 318}', encoding="utf-8")
    edit(folder / "tokenizer_config.json", lambda config: config.clear())
    (folder / "special_tokens_map.json").write_text(
        '{"eos_token": {"content": "</s>", "lstrip": false}, "pad_token": "PAD"}', encoding="utf-8"
    )
    tok = Tokenizer.from_pretrained(folder)
    assert tok.special_tokens == {"</s>": 317, "PAD": 318}
    assert (tok.eos_id, tok.pad_id) == (317, 318)


def test_settings_that_other_libraries_read_survive(folder, tmp_path):
    more = {"model_max_length": 512, "chat_template": "{{ messages }}", "eos_token": "<|im_start|>"}
    edit(folder / "tokenizer_config.json", lambda config: config | more)
    tok = Tokenizer.from_pretrained(folder)
    tok.save(tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert {key: config[key] for key in more} == more
    assert tok.eos_id == 319


def test_the_default_of_several_chat_templates_is_taken(folder):
    templates = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    edit(folder / "tokenizer_config.json", lambda config: config | {"chat_template": templates})
    assert Tokenizer.from_pretrained(folder).vocabulary.settings["chat_template"] == "d"


@pytest.mark.parametrize("template", [7, {"a": "b"}, [], [{"name": "tool_use", "template": "t"}]])
def test_a_chat_template_that_is_none_is_refused(folder, template):
    edit(folder / "tokenizer_config.json", lambda config: config | {"chat_template": template})
    with pytest.raises(TokenizerError, match="its chat_template is no text"):
        Tokenizer.from_pretrained(folder)


def test_a_chat_template_in_a_file_of_its_own_comes_first(folder, tokenizer):
    edit(folder / "tokenizer_config.json", lambda config: config | {"chat_template": "old"})
    (folder / "chat_template.jinja").write_text("new", encoding="utf-8")
    loaded = Tokenizer.from_pretrained(folder)
    assert loaded.vocabulary.settings["chat_template"] == "new"
    loaded.save(folder)  # the same in both places
    with pytest.raises(OutputError, match=r"holds a chat_template\.jinja, which other libraries"):
        tokenizer.save(folder)


def test_ids_of_another_layout_are_kept(folder, tokenizer):
    # Vocabularies of the tokenizers library often put the special tokens first.
    shift = {name: i for i, name in enumerate(tokenizer.special_tokens)}
    edit(
        folder / "vocab.json",
        lambda vocab: {k: shift[k] if k in shift else i + 3 for k, i in vocab.items()},
    )
    edit(
        folder / "tokenizer_config.json", lambda config: config.pop("added_tokens_decoder") and None
    )
    other = Tokenizer.from_pretrained(folder)
    assert other.encode(TEXT) == [i + 3 for i in tokenizer.encode(TEXT)]
    assert other.encode_batch([TEXT] * 2) == [other.encode(TEXT)] * 2
    assert other.special_tokens == shift
    assert other.vocab_size == tokenizer.vocab_size
    assert other.decode(other.encode(TEXT)) == TEXT


# ---- tokenizer.json -----------------------------------------------------------------------


def whole_file(tokenizer, **changes):
    vocabulary = tokenizer.vocabulary
    return {
        "added_tokens": [
            {"id": i, "content": name, "special": True} for name, i in vocabulary.special.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": vocabulary.shown(),
            "merges": [f"{show(left)} {show(right)}" for left, right in vocabulary.merges],
        },
    } | changes


@pytest.mark.parametrize("as_pairs", [False, True])
def test_a_folder_with_only_tokenizer_json_is_read(tokenizer, tmp_path, as_pairs):
    whole = whole_file(tokenizer)
    if as_pairs:  # newer versions of the library write a pair as a list
        whole["model"]["merges"] = [line.split(" ") for line in whole["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    tok = Tokenizer.from_pretrained(tmp_path)
    assert tok.encode(TEXT) == tokenizer.encode(TEXT)
    assert tok.special_tokens == tokenizer.special_tokens


@pytest.mark.parametrize(
    ("changes", "need"),
    [
        ({"model": {"type": "WordPiece", "vocab": {}}}, "a BPE model"),
        ({"normalizer": {"type": "NFC"}}, "no normalizer"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "a ByteLevel pre_tokenizer"),
        ({"pre_tokenizer": None}, "a ByteLevel pre_tokenizer"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "add_prefix_space"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}},
            "use_regex true",
        ),
    ],
)
def test_a_tokenizer_json_unlike_gpt2_is_refused(tokenizer, tmp_path, changes, need):
    whole = whole_file(tokenizer, **changes)
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(TokenizerError, match=f"not a tokenizer like GPT-2's, which has {need}"):
        Tokenizer.from_pretrained(tmp_path)


# ---- what is refused ----------------------------------------------------------------------


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(TokenizerError, match="neither merges.txt nor tokenizer.json; give a"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("h", "line 2 is not two known tokens: 'h'"),
        ("h e l", "line 2 is not two known tokens"),
        ("h yy", "line 2 is not two known tokens"),
        ("h \x07", "line 2 is not two known tokens"),
    ],
)
def test_a_broken_line_of_merges_is_refused(folder, line, complaint):
    path = folder / "merges.txt"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join([lines[0], line, *lines[1:]]), encoding="utf-8")
    with pytest.raises(TokenizerError, match=complaint):
        Tokenizer.from_pretrained(folder)


def test_a_merge_that_makes_a_token_again_is_refused(folder):
    path = folder / "merges.txt"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join([*lines[:-1], lines[1], ""]), encoding="utf-8")
    with pytest.raises(TokenizerError, match="makes a token again"):
        Tokenizer.from_pretrained(folder)


CONTRADICTIONS = {
    "lacks a token": (lambda v: v.pop("he") and None, "vocab.json lacks 'he', which a merge makes"),
    "has a strange token": (lambda v: v | {"foxtrot": 320}, "no merge makes 'foxtrot'"),
    "swaps two merges": (
        lambda v: {k: {256: 257, 257: 256}.get(i, i) for k, i in v.items()},
        "do not rise in the order",
    ),
    "uses an id twice": (lambda v: v | {"he": 0}, "same id"),
    "has a negative id": (lambda v: v | {"he": -1}, "-1 is no id"),
    "has an id that is no number": (lambda v: v | {"he": "256"}, "'256' is no id"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_vocab_json_that_contradicts_the_merges_is_refused(folder, what):
    change, complaint = CONTRADICTIONS[what]
    edit(folder / "vocab.json", change)
    with pytest.raises(TokenizerError, match=complaint) as error:
        Tokenizer.from_pretrained(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
@pytest.mark.parametrize("name", ["vocab.json", "tokenizer_config.json"])
def test_a_damaged_file_is_refused_by_name(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=name):
        Tokenizer.from_pretrained(folder)


ODD = {
    "tokenizer_config.json": [
        {"added_tokens_decoder": {"x": {}}},
        {"added_tokens_decoder": {"x": {"content": "<|x|>"}}},
        {"added_tokens_decoder": {"-1": {"content": "<|x|>"}}},
        {"added_tokens_decoder": {"320": {"content": 5}}},
        {"added_tokens_decoder": [1]},
        {"eos_token": ["<|x|>"]},
        None,
    ],
    "special_tokens_map.json": [[], {"pad_token": {"text": "<|x|>"}}, {"eos_token": 5}],
    "added_tokens.json": [[], {"<|x|>": "320"}, {"<|x|>": [320]}, {"<|x|>": True}],
    "vocab.json": [5, "he"],
    "tokenizer.json": [
        [],
        {"model": "BPE"},
        {"pre_tokenizer": ["ByteLevel"]},
        {"added_tokens": [{"id": 320}]},
        {"added_tokens": [{"id": "320", "content": "<|x|>"}]},
        {"added_tokens": 5},
        {"model": {"merges": 5}},
        {"model": {"merges": [[1, 2]]}},
        {"model": {"merges": ["h yy"]}},
        {"model": {"merges": [], "vocab": [["a", 0]]}},
    ],
}


@pytest.mark.parametrize(("name", "content"), [(name, c) for name in ODD for c in ODD[name]])
def test_json_of_another_layout_is_refused_by_name(folder, tokenizer, name, content):
    if name == "tokenizer.json":
        (folder / "merges.txt").unlink()
        content = whole_file(tokenizer, **content) if isinstance(content, dict) else content
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError) as error:
        Tokenizer.from_pretrained(folder)
    assert str(folder / name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "\ud800", "a"])
def test_a_bad_special_token_in_a_file_is_refused_with_the_folder(folder, content):
    odd = {"added_tokens_decoder": {"320": {"content": content}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(odd), encoding="utf-8")
    with pytest.raises(TokenizerError, match="special token") as error:
        Tokenizer.from_pretrained(folder)
    assert str(folder) in str(error.value)


def test_a_prefix_space_is_refused(folder):
    edit(folder / "tokenizer_config.json", lambda config: config | {"add_prefix_space": True})
    with pytest.raises(TokenizerError, match="add_prefix_space"):
        Tokenizer.from_pretrained(folder)


# ---- writing ------------------------------------------------------------------------------


def test_saving_to_a_file_or_below_one_is_refused(tokenizer, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot write to .*file.*choose a folder"):
            tokenizer.save(target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_save_that_fails_half_way_leaves_nothing(tokenizer, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cleangpt2.files.os.fsync", full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        tokenizer.save(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_old_vocabulary(tokenizer, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cleangpt2.files.os.fsync", full_disk)
    with pytest.raises(OutputError):
        tokenizer.add_special_tokens("<|new|>").save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_saving_beside_a_tokenizer_json_is_refused(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputError, match="holds a tokenizer.json"):
        tokenizer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_saving_again_replaces_the_old_files_and_no_others(tokenizer, folder):
    (folder / "config.json").write_text("{}", encoding="utf-8")
    shutil.copy(folder / "vocab.json", folder / "kept.json")
    tokenizer.add_special_tokens("<|new|>").save(folder)
    assert Tokenizer.from_pretrained(folder).special_tokens["<|new|>"] == 320
    assert {path.name for path in folder.iterdir()} == FILES | {"config.json", "kept.json"}
