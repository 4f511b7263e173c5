"""GPT-2's own vocabulary against the seed, published ids, tiktoken and the tokenizers library."""

import gzip
import hashlib
import json

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from cleangpt2.tokenizer import Tokenizer, bpe
from cleangpt2.tokenizer.vocabulary import share_with_space
from tests import fake_hub
from tests.helpers import require, run_python

# The calls of the notebook this project grew from; at S-17 it said [72], which was wrong.
SEED = {
    " a": [257],  # S-12
    "a": [64],
    "a ": [64, 220],
    " i": [1312],
    "i": [72],
    "i ": [72, 220],  # S-17
    "Michael": [13256],
    " Michael": [3899],
    " michael": [285, 40302],
    "michael": [76, 40302],
    "56873+3184623=123456789-1000000000": [
        49211, 4790, 10, 36042, 3510, 1954, 28, 10163, 2231, 3134, 4531, 12, 16, 10535, 830,
    ],
    "A day without laughter is a day": [32, 1110, 1231, 20263, 318, 257, 1110],  # S-23, S-24
    "If computers were one day exceeded human level intelligence,": [
        1532, 9061, 547, 530, 1110, 20672, 1692, 1241, 4430, 11,
    ],
    "Hello, I am an language model,": [15496, 11, 314, 716, 281, 3303, 2746, 11],
    "Hello, I am an language model, I have a total of 124M": [
        15496, 11, 314, 716, 281, 3303, 2746, 11, 314, 423, 257, 2472, 286, 19755, 44,
    ],
    "What is the meaning of life?": [2061, 318, 262, 3616, 286, 1204, 30],  # S-28
}  # fmt: skip

ZEROS = [
    [15], [405], [830], [2388], [20483], [10535], [24598], [8269], [10535, 830], [8269, 405],
    [8269, 830], [8269, 2388], [8269, 20483], [8269, 10535], [8269, 24598], [25645],
    [8269, 10535, 830],
]  # fmt: skip

PUBLISHED = {
    "hello world": [31373, 995],  # openai/tiktoken, tests/test_encoding.py
    **{"0" * (n + 1): ids for n, ids in enumerate(ZEROS)},
    "The quick brown fox.": [464, 2068, 7586, 21831, 13],  # keras-hub, gpt2_tokenizer_test.py
    "Hello!! I'm Andrej Karpathy. It's 2022. w00t :D 🤗": [  # minGPT, mingpt/bpe.py
        15496, 3228, 314, 1101, 10948, 73, 509, 5117, 10036, 13, 632, 338, 33160, 13, 266, 405,
        83, 1058, 35, 12520, 97, 245,
    ],
    "Hello world": [15496, 995],
}  # fmt: skip

odd_text = st.text(
    st.one_of(st.characters(), st.sampled_from(" \n\t'sdmtlrve019aEé._\u00a0\u3000\x00\x85🤗"))
)
settled_text = st.text(  # characters that every engine's Unicode knows
    st.one_of(
        st.characters(exclude_categories=["Cs", "Cn"]), st.sampled_from(" \n\t'sdmtlrve019aEé._🤗")
    )
)


@pytest.fixture(scope="module")
def gpt2(shared_data):
    return Tokenizer.from_pretrained(shared_data / "gpt2")


@pytest.fixture(scope="module")
def readable(gpt2):
    return bpe.BytePairEncoder(gpt2.vocabulary.merges)


@pytest.fixture(scope="module")
def raw_tiktoken(shared_data):
    """tiktoken with the vocabulary as OpenAI publishes it, and the pattern GPT-2 was made with."""
    ids = json.loads((shared_data / "gpt2" / "encoder.json").read_text(encoding="utf-8"))
    bytes_of = {shown: byte for byte, shown in bpe.bytes_to_printable().items()}
    end = ids.pop("<|endoftext|>")
    return tiktoken.Encoding(
        name="gpt2",
        explicit_n_vocab=50257,
        pat_str=r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks={bytes(bytes_of[c] for c in shown): i for shown, i in ids.items()},
        special_tokens={"<|endoftext|>": end},
    )


@pytest.fixture(scope="module")
def huggingface(shared_data):
    tokenizers = require("tokenizers")
    folder = shared_data / "gpt2"
    engine = tokenizers.Tokenizer(
        tokenizers.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    )
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return engine


@pytest.mark.parametrize("text", SEED)
def test_the_calls_of_the_seed(gpt2, readable, text):
    assert gpt2.encode(text) == readable.encode(text) == SEED[text]
    assert gpt2.encode_batch([text]) == [SEED[text]]
    assert gpt2.decode(SEED[text]) == readable.decode(SEED[text]) == text


def test_a_prefix_of_a_text_need_not_be_a_prefix_of_its_ids(gpt2):  # S-30
    short, long = list(SEED)[-3:-1]
    assert long.startswith(short)
    assert SEED[long][: len(SEED[short])] == SEED[short]
    assert gpt2.encode("a b")[: len(gpt2.encode("a "))] != gpt2.encode("a ")


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_ids(gpt2, readable, text):
    assert gpt2.encode(text) == readable.encode(text) == PUBLISHED[text]


def test_the_end_token_by_name_and_as_text(gpt2):
    text = "hello <|endoftext|>"
    assert gpt2.encode(text, allowed_special={"<|endoftext|>"}) == [31373, 220, 50256]
    assert gpt2.encode(text) == [31373, 1279, 91, 437, 1659, 5239, 91, 29]
    assert (gpt2.eos_id, gpt2.pad_id, gpt2.vocab_size) == (50256, None, 50257)


def test_whole_files_have_the_published_number_of_tokens(gpt2, shared_data):
    text = (shared_data / "pretrain" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    ids = gpt2.encode(text)
    assert len(ids) == 338_025
    assert gpt2.decode(ids) == text
    cut = int(len(text) * 0.9)  # nanoGPT, data/shakespeare/prepare.py
    assert [len(i) for i in gpt2.encode_batch([text[:cut], text[cut:]])] == [301_966, 36_059]

    sections = text.split("\n\n")  # llm.c, dev/data/tinyshakespeare.py
    sections = [section + "\n\n" for section in sections[:-1]] + sections[-1:]
    tokens = [i for row in gpt2.encode_batch(sections) for i in (gpt2.eos_id, *row)]
    assert len(tokens) == 338_028
    assert tokens[:18] == [
        50256, 5962, 22307, 25, 198, 8421, 356, 5120, 597, 2252, 11, 3285, 502, 2740, 13, 628,
        50256, 3237,
    ]  # fmt: skip

    path = shared_data / "eval" / "wikitext2_test_raw.txt"
    plain = path.read_bytes().decode()
    rows = [line + "\n" if line.strip() else "" for line in plain.split("\n")[:-1]]
    assert len(gpt2.encode(plain)) == 286_221
    assert len(gpt2.encode("\n\n".join(rows))) == 287_644  # as Hugging Face joins its rows


def test_two_thirds_of_the_merges_start_with_a_space(gpt2):  # S-33
    assert round(share_with_space(gpt2.vocabulary.merges), 3) == 0.663


@given(text=odd_text)
@settings(max_examples=500)
def test_any_text_gets_the_ids_of_tiktoken_and_tokenizers(gpt2, raw_tiktoken, huggingface, text):
    ids = gpt2.encode(text)
    assert ids == raw_tiktoken.encode_ordinary(text)
    assert ids == huggingface.encode(text, add_special_tokens=False).ids
    assert gpt2.decode_bytes(ids) == text.encode()


@given(text=settled_text)
def test_any_text_gets_the_ids_of_the_readable_algorithm(gpt2, readable, text):
    assert readable.encode(text) == gpt2.encode(text)
    assert readable.decode(gpt2.encode(text)) == text


def texts_of(path):
    """The texts of a data file, whatever its columns are called."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        if ".jsonl" not in path.name:
            yield file.read()
            return
        for line in file:
            yield from (value for value in json.loads(line).values() if isinstance(value, str))


def first_megabytes(path, megabytes):
    """The first texts of a data file, up to a size."""
    texts, size = [], 0
    for text in texts_of(path):
        if size < megabytes * 1e6:
            texts.append(text)
            size += len(text.encode())
    return texts


VARIED = [
    "pretrain/tinyshakespeare.txt",
    "pretrain/storybooks_en.jsonl.gz",
    "pretrain/aesop_for_children.jsonl.gz",
    "pretrain/fairytaleqa_stories.jsonl.gz",
    "eval/wikitext2_valid_tokens.txt",
    "eval/ptb_test.txt",
    "eval/lambada_openai.jsonl.gz",
    "eval/hellaswag_subset.jsonl",
    "sft/gsm8k_train_alpaca_format.jsonl.gz",
    "sft/alpaca_head_1805.jsonl.gz",
    "sft/gpteacher_roleplay.jsonl.gz",
    "sft/dolly_hhrlhf_1000.jsonl",
    "preference/hh_rlhf_harmless_base_test.jsonl.gz",
    "sentiment/imdb_test.jsonl.gz",
]


@pytest.fixture(scope="module")
def varied(shared_data):
    """Twenty megabytes: plays, tales, news, dialogue, instructions, sums, reviews."""
    texts, size = [], 0
    for name in VARIED:
        texts += first_megabytes(shared_data / name, min(6, 20.5 - size))
        size = sum(len(text.encode()) for text in texts) / 1e6
    assert size >= 20
    return texts


@pytest.fixture(scope="module")
def varied_ids(gpt2, varied):
    require("gigatoken")
    bulk = gpt2.encode_batch(varied)
    assert gpt2._bulk is not None  # it went through gigatoken
    return bulk


@pytest.mark.slow
def test_twenty_megabytes_get_the_ids_of_tiktoken(gpt2, varied, varied_ids, raw_tiktoken):
    assert varied_ids == [raw_tiktoken.encode_ordinary(text) for text in varied]
    assert varied_ids == [gpt2.encode(text) for text in varied]
    assert [gpt2.decode(ids) for ids in varied_ids] == varied


@pytest.mark.slow
def test_twenty_megabytes_get_the_ids_of_tokenizers(varied, varied_ids, huggingface):
    for start in range(0, len(varied), 1000):
        rows = huggingface.encode_batch(varied[start : start + 1000], add_special_tokens=False)
        assert [row.ids for row in rows] == varied_ids[start : start + 1000]


@pytest.mark.slow
def test_every_character_of_unicode_on_every_way(gpt2, raw_tiktoken, huggingface):
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = ["".join(every[start : start + 500]) for start in range(0, len(every), 500)]
    texts += ["b".join(every[start : start + 500]) for start in range(0, len(every), 500)]
    bulk = gpt2.encode_batch(texts)
    assert bulk == [raw_tiktoken.encode_ordinary(text) for text in texts]
    assert bulk == [row.ids for row in huggingface.encode_batch(texts, add_special_tokens=False)]
    assert [gpt2.decode(ids) for ids in bulk] == texts


@pytest.mark.slow
def test_the_readable_algorithm_on_real_texts(gpt2, readable, shared_data):
    for name in ("pretrain/aesop_for_children.jsonl.gz", "eval/hellaswag_subset.jsonl"):
        texts = list(texts_of(shared_data / name))
        assert [readable.encode(text) for text in texts] == gpt2.encode_batch(texts)


# ---- folders ------------------------------------------------------------------------------


def test_saving_gpt2_writes_openais_files_byte_for_byte(gpt2, shared_data, tmp_path):
    gpt2.save(tmp_path)
    for name in ("merges.txt", "vocab.json"):
        assert (tmp_path / name).read_bytes() == (shared_data / "gpt2" / name).read_bytes()


@pytest.fixture(scope="module")
def story():
    special = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>")
    corpus = "A day without laughter is a day. I'm 42 years old, aren't you?  Zoë 👍🏽\n" * 2
    return Tokenizer.train([corpus], 300, special)


@pytest.mark.parametrize("loader", ["AutoTokenizer", "GPT2Tokenizer"])
def test_transformers_opens_what_we_save(story, tmp_path, loader):
    transformers = require("transformers")
    story.save(tmp_path)
    theirs = getattr(transformers, loader).from_pretrained(tmp_path)
    text = "A day, isn't it?  42 Zoë 👍🏽\n\n"
    assert theirs(text)["input_ids"] == story.encode(text)
    assert theirs.decode(story.encode(text)) == text
    assert len(theirs) == story.vocab_size
    assert (theirs.eos_token_id, theirs.pad_token_id) == (story.eos_id, story.pad_id)
    assert theirs.bos_token_id == story.eos_id
    for name, i in story.special_tokens.items():
        assert theirs.convert_tokens_to_ids(name) == i
        assert theirs(f"day{name}")["input_ids"] == story.encode(
            f"day{name}", allowed_special=[name]
        )


def test_transformers_opens_a_vocabulary_without_special_tokens_or_with_others(tmp_path):
    transformers = require("transformers")
    for names in ((), ("<|user|>",)):
        tok = Tokenizer.train(["low lower lowest " * 3], 262, names)
        tok.save(tmp_path)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert theirs("lower")["input_ids"] == tok.encode("lower")
        assert len(theirs) == tok.vocab_size == 262


def test_what_transformers_saves_we_read(story, tmp_path):
    transformers = require("transformers")
    story.save(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    again = Tokenizer.from_pretrained(tmp_path / "theirs")
    assert again.encode("A day, isn't it?") == story.encode("A day, isn't it?")
    assert again.special_tokens == story.special_tokens
    assert (again.eos_id, again.pad_id) == (story.eos_id, story.pad_id)


# ---- training -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["rustbpe", "gigatoken"])
@pytest.mark.parametrize("name", ["tinystories_train", "chilit_books", "fairytaleqa_stories"])
def test_the_readable_trainer_learns_the_merges_of_the_fast_ones(shared_data, engine, name):
    n_merges = 8192 - 256
    texts = first_megabytes(shared_data / "pretrain" / f"{name}.jsonl.gz", 4)
    merges = bpe.train(texts, n_merges)
    tokens = [left + right for left, right in merges]
    if engine == "gigatoken":
        require("gigatoken")
        from cleangpt2.tokenizer import fast

        assert fast.train(texts, n_merges) == merges
    else:
        rust = require("rustbpe").Tokenizer()
        rust.train_from_iterator(iter(texts), 8192, pattern=bpe.SPLIT_PATTERN)
        ranks = sorted(rust.get_mergeable_ranks(), key=lambda pair: pair[1])
        assert [bytes(token) for token, _ in ranks][256:] == tokens


# ---- by name ------------------------------------------------------------------------------

ASK = "from cleangpt2 import Tokenizer; print(Tokenizer.from_pretrained({!r}).encode('a day'))"


def test_gpt2_by_name_fetches_its_merges_alone_and_checks_them(shared_data, tmp_path):
    require("huggingface_hub")
    with fake_hub.serve() as hub:
        for repo in ("openai-community/gpt2", "distilbert/distilgpt2"):
            hub.add_folder(repo, shared_data / "gpt2")
        for name in ("gpt2", "distilgpt2"):
            done = run_python("-c", ASK.format(name), env=hub.env(tmp_path / "cache"))
            assert done.stdout == "[64, 1110]\n", done.stderr
        assert {path.rsplit("/", 1)[1] for _, path, _ in hub.requests} == {"merges.txt"}

        merges = hub.files["openai-community/gpt2"]["merges.txt"]
        hub.files["openai-community/gpt2-xl"] = {"merges.txt": merges.replace(b"l i\n", b"", 1)}
        done = run_python("-c", ASK.format("gpt2-xl"), env=hub.env(tmp_path / "cache"))
        assert done.returncode == 1
        assert "CheckpointError" in done.stderr
        assert "expected 1ce166477" in done.stderr


def test_any_hub_id_with_a_tokenizer_works(story, tmp_path):
    require("huggingface_hub")
    story.save(tmp_path / "story")
    with fake_hub.serve() as hub:
        hub.add_folder("someone/story", tmp_path / "story")
        hub.files["someone/empty"] = {"config.json": b"{}"}
        done = run_python("-c", ASK.format("someone/story"), env=hub.env(tmp_path / "cache"))
        assert done.stdout == f"{story.encode('a day')}\n", done.stderr
        done = run_python("-c", ASK.format("someone/empty"), env=hub.env(tmp_path / "cache"))
        assert "someone/empty" in done.stderr.splitlines()[-1]
        assert "merges.txt" in done.stderr.splitlines()[-1]


def test_the_published_hash_is_that_of_the_published_file(shared_data):
    from cleangpt2.tokenizer.files import GPT2_MERGES_SHA256

    data = (shared_data / "gpt2" / "merges.txt").read_bytes()
    assert hashlib.sha256(data).hexdigest() == GPT2_MERGES_SHA256
