"""A model that is as it should be, and every way in which one may not be."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from cleangpt2.doctor.folder import TEXTS, folder
from cleangpt2.hub import Source, check_content
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.pretrained import save
from cleangpt2.tokenizer import Tokenizer, Vocabulary
from cleangpt2.tokenizer.files import GPT2_MERGES_SHA256
from tests.model.convert.writers import write_tensorflow
from tests.stubs import random_model, small_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "little"
    tokenizer = small_tokenizer()
    save(random_model(tokenizer.vocab_size), tokenizer, path)
    return path


@pytest.fixture
def place(original, tmp_path):
    return shutil.copytree(original, tmp_path / "little")


def findings(place, dtype=torch.float32):
    return {finding.subject: finding for finding in folder(str(place), CPU, dtype)}


def failed(place):
    """Subject -> detail and advice of what failed."""
    found = findings(place).values()
    return {f.subject: f"{f.detail}; {f.advice}" for f in found if f.verdict == "failed"}


def tensors(place):
    return load_file(place / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_whole_model_passes_every_check(place, dtype):
    found = findings(place, dtype)
    subjects = ["source", "files", "lineage", "weights", "numbers", "tokenizer", "round trip"]
    assert list(found) == [*subjects, "runs"]
    assert {found[subject].verdict for subject in subjects} == {"ok"}
    # Random weights know nothing, and it says so.
    assert found["runs"].verdict in ("ok", "warning")
    assert found["weights"].detail.startswith("29 tensors")


def test_the_bundled_model_knows_english():
    found = findings("story")
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert found["source"].detail == "'story' is bundled with cleangpt2"


def test_an_untrained_model_is_told(original, tmp_path):
    tokenizer = small_tokenizer()
    model = random_model(tokenizer.vocab_size)
    with torch.no_grad():
        model.output_weight.mul_(-9)
    save(model, tokenizer, tmp_path)
    finding = findings(tmp_path)["runs"]
    assert finding.verdict == "warning"
    assert "5.70 by guessing" in finding.detail  # ln 300


def test_truncated_weights_are_named_with_both_sizes(place):
    path = place / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    found = failed(place)
    assert f"model.safetensors has {size - 100:,} bytes, {size:,} were written" in found["lineage"]
    assert "its header asks for" in found["weights"]
    assert findings(place)["runs"].verdict == "not run"


def test_weights_that_are_no_numbers_are_named(place):
    broken = tensors(place)
    broken["transformer.h.1.mlp.c_fc.bias"][3] = torch.nan
    broken["transformer.ln_f.weight"][:2] = torch.inf
    save_file(broken, place / "model.safetensors", metadata={"format": "pt"})
    found = failed(place)
    assert "h.1.mlp.c_fc.bias (1 of 128 numbers)" in found["numbers"]
    assert "ln_f.weight (2 of 32 numbers)" in found["numbers"]
    assert "model.safetensors has sha256" in found["lineage"]
    assert findings(place)["runs"].verdict == "not run"


def test_a_changed_byte_is_named_though_the_model_runs(place):
    data = bytearray((place / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (place / "model.safetensors").write_bytes(data)
    assert list(failed(place)) == ["lineage"]
    assert findings(place)["runs"].verdict != "not run"


def test_weights_of_another_shape_are_named(place):
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    (place / "config.json").write_text(json.dumps(config | {"n_layer": 3}), encoding="utf-8")
    found = failed(place)
    assert "config.json" in found["lineage"]
    assert "asks for 3 layers, the weights have 2" in found["weights"]


@pytest.mark.parametrize(
    ("name", "subject", "said"),
    [
        ("config.json", "config.json", "has no config.json"),
        ("model.safetensors", "weights", "has no model.safetensors or pytorch_model.bin"),
        ("merges.txt", "tokenizer files", "has no merges.txt or tokenizer.json"),
    ],
)
def test_a_missing_file_is_named(place, name, subject, said):
    (place / name).unlink()
    found = failed(place)
    assert said in found[subject]
    assert f"{name} is missing" in found["lineage"]
    assert findings(place)["runs"].verdict == "not run"


def test_merges_that_were_cut_are_named(place):
    path = place / "merges.txt"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-5]) + "\n", "utf-8")
    found = failed(place)
    assert "merges.txt has" in found["lineage"]
    assert "vocab.json" in found["tokenizer"]  # of another tokenizer now


def test_fifty_thousand_tokens_that_are_not_gpt2s_are_told(place):
    """No lineage and no hub: only the hash that everybody knows can tell."""
    letters = [bytes([byte]) for byte in range(97, 123)]
    pairs = [a + b for a in letters for b in letters]
    merges = [(pair[:1], pair[1:]) for pair in pairs]
    merges += [(a, b) for a in pairs for b in pairs][: 50000 - len(merges)]
    strange = Tokenizer(Vocabulary.from_merges(merges))
    assert strange.vocab_size == 50257
    save(random_model(50257), strange, place)
    finding = findings(place)["tokenizer"]
    assert finding.verdict == "warning"
    assert "not GPT-2's" in finding.detail and "merges.txt" in finding.advice


def test_the_real_vocabulary_is_recognised_under_openais_names(tmp_path, shared_data):
    place = tmp_path / "124M"
    write_tensorflow(place, GPT2(GPT2Config(n_positions=64, n_embd=4, n_layer=1, n_head=1)))
    for name in ("vocab.bpe", "encoder.json"):
        shutil.copy(shared_data / "gpt2" / name, place)
    assert findings(place)["tokenizer"].detail == "50,257 tokens, GPT-2's own"


def test_the_real_vocabulary_is_recognised(place, shared_data):
    for name in ("merges.txt", "vocab.json"):
        shutil.copy(shared_data / "gpt2" / name, place)
    (place / "tokenizer_config.json").unlink()
    save(random_model(50257), None, place)
    found = findings(place)
    assert found["tokenizer"].detail == "50,257 tokens, GPT-2's own"
    assert GPT2_MERGES_SHA256  # by that hash, which tests/tokenizer compares with the file
    assert found["round trip"].verdict == "ok"


def test_a_tokenizer_that_loses_text_fails(place, monkeypatch):
    decode = Tokenizer.decode
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: decode(self, ids).strip())
    assert repr(TEXTS[1]) in failed(place)["round trip"]


def test_a_folder_without_lineage_cannot_be_checked_and_works(place):
    (place / "lineage.json").unlink()
    found = findings(place)
    assert found["lineage"].verdict == "not run"
    assert failed(place) == {}


def test_a_damaged_lineage_fails(place):
    (place / "lineage.json").write_text("{", encoding="utf-8")
    assert "cannot be used" in failed(place)["lineage"]


def test_a_file_that_came_later_is_told(place):
    shutil.copy(place / "model.safetensors", place / "pytorch_model.bin")
    found = list(folder(str(place), CPU, torch.float32))
    told = [f for f in found if f.verdict == "warning" and f.subject == "lineage"]
    assert "pytorch_model.bin came later" in told[0].detail


def test_a_model_that_overflows_in_half_precision_is_told(place):
    large = tensors(place)
    large["transformer.h.0.mlp.c_fc.weight"] *= 1e5
    large["transformer.h.0.mlp.c_proj.weight"] *= 1e3
    save_file(large, place / "model.safetensors", metadata={"format": "pt"})
    finding = findings(place, torch.float16)["runs"]
    assert finding.verdict == "failed"
    assert "bfloat16" in finding.advice


def test_a_checkpoint_of_another_program_is_examined(tmp_path):
    args = {"n_layer": 1, "n_head": 2, "n_embd": 8, "vocab_size": 300, "block_size": 16}
    model = GPT2(GPT2Config.from_dict(args))
    weights = {f"transformer.{name}": tensor for name, tensor in model.state_dict().items()}
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    args |= {"bias": True, "dropout": 0.0}
    torch.save({"model": weights, "model_args": args}, tmp_path / "ckpt.pt")
    small_tokenizer().save(tmp_path)
    found = findings(tmp_path / "ckpt.pt")
    assert "cleangpt2 convert" in found["files"].detail
    assert "lineage" not in found
    assert found["numbers"].verdict == found["tokenizer"].verdict == "ok"
    assert "a loss of" in found["runs"].detail


# ---- the hub's cache --------------------------------------------------------------------------


@pytest.fixture
def cached(original, tmp_path, monkeypatch):
    """The cache as the hub's client lays it out: contents under their hash, and links to them."""
    import hashlib

    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--me--little"
    snapshot = repo / "snapshots" / commit
    for part in (repo / "refs", repo / "blobs", snapshot):
        part.mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit, encoding="ascii")
    for path in original.iterdir():
        data = path.read_bytes()
        is_large = path.suffix == ".safetensors"
        digest = hashlib.sha256(data) if is_large else hashlib.sha1(b"blob %d\0" % len(data) + data)
        (repo / "blobs" / digest.hexdigest()).write_bytes(data)
        try:
            (snapshot / path.name).symlink_to(repo / "blobs" / digest.hexdigest())
        except OSError:
            pytest.skip("this system makes no links")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return snapshot


def test_files_of_the_hub_are_checked_by_the_hashes_it_published(cached):
    found = findings("me/little")
    assert found["published hashes"].verdict == "ok"
    assert "model.safetensors" in found["published hashes"].detail
    assert {finding.verdict for finding in found.values()} <= {"ok", "warning"}
    for name in ("model.safetensors", "merges.txt"):
        path = cached / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.resolve().write_bytes(data)
    told = [f for f in folder("me/little", CPU, torch.float32) if f.subject == "published hashes"]
    assert [f.detail.split(":")[0] for f in told if f.verdict == "failed"] == [
        "merges.txt",
        "model.safetensors",
    ]
    blobs = [str((cached / name).resolve()) for name in ("merges.txt", "model.safetensors")]
    advice = [f.advice for f in told if f.verdict == "failed"]
    assert [words.split(": ")[0] for words in advice] == blobs


def test_a_cache_without_links_cannot_be_checked(cached):
    for path in list(cached.iterdir()):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    finding = findings("me/little")["published hashes"]
    assert finding.verdict == "not run"
    assert "merges.txt" in finding.detail
    check_content(cached / "merges.txt", "")  # a name that is no hash says nothing
    assert Source("me/little", repo="me/little").local("merges.txt") is not None
