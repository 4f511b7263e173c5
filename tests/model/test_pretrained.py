"""Model folders: what is written is read back bit for bit, and what is wrong is named."""

import errno
import json
import os
import pickle
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cleangpt2 import files
from cleangpt2.errors import (
    CheckpointError,
    CleanGPT2Error,
    ConfigError,
    DeviceError,
    ModelNotFoundError,
    OutputError,
    TokenizerError,
)
from cleangpt2.model import matching, pretrained
from cleangpt2.model.config import SIZES, GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.pretrained import load, load_model, outline, save_model
from cleangpt2.tokenizer import Tokenizer
from tests import fake_hub
from tests.helpers import run_python

CONFIG = GPT2Config(vocab_size=97, n_positions=16, n_embd=12, n_layer=3, n_head=3, n_inner=20)
UNTIED = GPT2Config(vocab_size=97, n_positions=16, n_embd=12, n_layer=2, n_head=2,
                    tie_word_embeddings=False)  # fmt: skip


def scrambled(config: GPT2Config, dtype: torch.dtype = torch.float32) -> GPT2:
    """A model in which no two weights are equal, so that a swapped or forgotten one shows."""
    model = GPT2(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.to(dtype)


@pytest.fixture
def model():
    return scrambled(CONFIG)


@pytest.fixture
def folder(model, tmp_path):
    """A sound model folder for tests to spoil."""
    save_model(model, tmp_path / "model")
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_weights(ours: GPT2, other: GPT2) -> None:
    theirs = dict(other.named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.dtype == theirs[name].dtype
        assert torch.equal(parameter, theirs.pop(name)), name
    assert not theirs


def rewrite(folder: Path, change) -> None:
    """Apply `change` to the tensors of a folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **changes) -> None:
    """Change keys of a folder's ``config.json``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def refusal(folder: Path, error: type[CleanGPT2Error]) -> str:
    """The message of the error that loading this folder raises; the folder stays as it is."""
    before = contents(folder)
    with pytest.raises(error) as caught:
        load_model(folder, device="cpu")
    assert contents(folder) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is written is what is read


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
def test_a_round_trip_is_bit_equal(config, dtype, tmp_path):
    model = scrambled(config, dtype)
    save_model(model, tmp_path)
    again = load_model(tmp_path, device="cpu", dtype=dtype)
    assert again.config == config
    assert_same_weights(model, again)


def test_the_front_methods_of_the_model_do_the_same(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert_same_weights(model, GPT2.from_pretrained(tmp_path, device="cpu"))


def test_the_file_is_in_hugging_faces_layout(model, folder):
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert all(name.startswith("transformer.") for name in shapes)
    assert len(shapes) == 2 + 12 * CONFIG.n_layer + 2
    assert shapes["transformer.wte.weight"] == (97, 12)
    assert shapes["transformer.h.2.attn.c_attn.weight"] == (12, 36)
    assert shapes["transformer.h.2.mlp.c_fc.weight"] == (12, 20)
    assert shapes["transformer.h.2.mlp.c_proj.weight"] == (20, 12)
    square = load_file(folder / "model.safetensors")["transformer.h.1.attn.c_proj.weight"]
    assert torch.equal(square, model.h[1].attn.c_proj.weight.t())


def test_the_output_layer_is_stored_only_where_it_is_untied(tmp_path):
    save_model(scrambled(UNTIED), tmp_path)
    assert load_file(tmp_path / "model.safetensors")["lm_head.weight"].shape == (97, 12)


def test_the_json_files_say_what_others_ask_for(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert (config["model_type"], config["torch_dtype"]) == ("gpt2", "float32")
    assert GPT2Config.from_dict(config) == CONFIG
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert generation == {"bos_token_id": 50256, "eos_token_id": 50256}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permission bits")
def test_whoever_may_read_the_config_may_read_the_weights(folder):
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_a_loaded_model_is_ready_to_use_and_to_train(folder):
    model = load_model(folder, device="cpu")
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert (model.dtype, model.device.type) == (torch.float32, "cpu")


def test_weights_are_converted_as_asked(model, folder):
    loaded = load_model(folder, device="cpu", dtype="bf16")
    assert_same_weights(loaded, model.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_are_stored_as_asked(model, tmp_path, dtype):
    save_model(model, tmp_path, dtype=dtype)
    stored = load_file(tmp_path / "model.safetensors").values()
    assert {tensor.dtype for tensor in stored} == {getattr(torch, dtype)}
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["torch_dtype"] == dtype
    # The file has half precision; computing in float32 stays the default.
    assert_same_weights(load_model(tmp_path, device="cpu"), model.to(getattr(torch, dtype)).float())


# Other people's files


def test_names_without_the_prefix_are_read(model, folder):
    rewrite(folder, lambda t: [t.update({n.removeprefix("transformer."): t.pop(n)}) for n in [*t]])
    assert_same_weights(model, load_model(folder, device="cpu"))


def test_masks_and_a_tied_output_layer_of_old_files_are_passed_over(model, folder):
    def age(tensors):
        for layer in range(CONFIG.n_layer):
            tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
            tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()

    rewrite(folder, age)
    assert_same_weights(model, load_model(folder, device="cpu"))


def test_a_tied_output_layer_that_differs_is_refused(folder):
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"] + 1}))
    message = refusal(folder, CheckpointError)
    assert "lm_head.weight differs from wte.weight" in message
    assert 'set "tie_word_embeddings": false' in message
    edit_config(folder, tie_word_embeddings=False)
    untied = load_model(folder, device="cpu")
    assert torch.equal(untied.lm_head.weight, untied.wte.weight + 1)


def shard(folder: Path, name: str, save) -> None:
    """Spread the tensors of a folder over three files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, suffix = name.split(".")
    weight_map = {key: f"{stem}-{i % 3 + 1:05}-of-00003.{suffix}" for i, key in enumerate(tensors)}
    for file in set(weight_map.values()):
        save({k: t for k, t in tensors.items() if weight_map[k] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / f"{name}.index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "save"), [("model.safetensors", save_file), ("pytorch_model.bin", torch.save)]
)
def test_sharded_weights_are_read(model, folder, name, save):
    shard(folder, name, save)
    assert_same_weights(model, load_model(folder, device="cpu"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before PyTorch 1.6"])
def test_pickled_weights_are_read(model, folder, zipped):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    assert_same_weights(model, load_model(folder, device="cpu"))


def test_safetensors_are_preferred_to_pickles(model, folder):
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert_same_weights(model, load_model(folder, device="cpu"))


def test_a_hub_model_is_loaded_and_then_found_offline(folder, tmp_path):
    shard(folder, "model.safetensors", save_file)
    code = (
        "import sys, torch; compiler = 'torch._dynamo' in sys.modules;"
        "from cleangpt2.model.pretrained import load_model;"
        "print(float(load_model('gpt2', device='cpu').wte.weight.detach().double().sum()));"
        "assert compiler or 'torch._dynamo' not in sys.modules"  # it would cost 2 s
    )
    expected = float(load_model(folder, device="cpu").wte.weight.detach().double().sum())
    with fake_hub.serve() as hub:
        hub.add_folder("openai-community/gpt2", folder)
        for offline in ("0", "1"):
            env = {**hub.env(tmp_path / "cache"), "HF_HUB_OFFLINE": offline}
            done = run_python("-c", code, env=env)
            assert done.returncode == 0, done.stderr
            assert float(done.stdout) == expected
        assert len(hub.fetched("config.json")) == 1


# Damage and mistakes: one line each, and nothing changed


@pytest.mark.parametrize("keep", [0, 5, 8, 60, -1, -1000])
def test_a_truncated_file_is_named_with_its_size(folder, keep):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    message = refusal(folder, CheckpointError)
    assert f"{path} is damaged: it has {len(whole[:keep]):,} bytes" in message
    assert "delete it and copy or download it again" in message
    if keep < 0:
        assert f"its header asks for {len(whole):,}" in message


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00" * 4000,
        b"<html>404: Not Found</html>",
        struct.pack("<Q", 2**60) + b"{}",  # a header of an exabyte
        struct.pack("<Q", 4) + b"nope",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 17) + b'{"a":{"shape":0}}',
    ],
)
def test_a_file_that_is_no_safetensors_is_named(folder, junk):
    (folder / "model.safetensors").write_bytes(junk)
    message = refusal(folder, CheckpointError)
    assert f"{folder / 'model.safetensors'} is damaged" in message


def test_a_git_lfs_pointer_is_recognised(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n"
    (folder / "model.safetensors").write_text(text, encoding="utf-8")
    assert "is a Git LFS pointer, not the weights: run 'git lfs pull'" in refusal(
        folder, CheckpointError
    )


def test_missing_unexpected_and_misshapen_tensors_are_counted_in_one_line(folder):
    def spoil(tensors):
        for layer in range(3):
            del tensors[f"transformer.h.{layer}.ln_2.weight"]
            del tensors[f"transformer.h.{layer}.ln_2.bias"]
        tensors["score.weight"] = torch.zeros(2, 12)
        tensors["transformer.wte.weight"] = torch.zeros(128, 12)
        tensors["transformer.h.0.attn.c_attn.weight"] = torch.zeros(36, 12)  # not transposed

    rewrite(folder, spoil)
    message = refusal(folder, CheckpointError)
    assert str(folder) in message
    assert "6 missing (h.0.ln_2.weight, h.0.ln_2.bias, h.1.ln_2.weight, ...)" in message
    assert "1 unexpected (score.weight)" in message
    assert "2 of another shape (wte.weight is 128 x 12, not 97 x 12, " in message
    assert "h.0.attn.c_attn.weight is 36 x 12, not 12 x 36)" in message
    assert "use the config.json that belongs to these weights" in message


@pytest.mark.parametrize("n_layer", [2, 4, 4096])
def test_another_number_of_layers_is_named_at_once(folder, n_layer):
    edit_config(folder, n_layer=n_layer)
    message = refusal(folder, CheckpointError)
    assert f"config.json asks for {n_layer} layers, the weights have 3" in message


def test_an_enormous_config_takes_no_memory(folder):
    edit_config(folder, vocab_size=16_000_000, n_inner=1_000_000)
    assert "wte.weight is 97 x 12, not 16000000 x 12" in refusal(folder, CheckpointError)


def test_a_file_of_one_tensor_cannot_ask_for_thousands_of_layers(folder, monkeypatch):
    monkeypatch.setattr(matching, "outline", None)  # which would lay them out
    edit_config(folder, n_layer=4096)
    rewrite(folder, lambda t: t.update({"h.4095.ln_1.weight": torch.zeros(12)}))
    message = refusal(folder, CheckpointError)
    assert "asks for 4096 layers, the weights have 4" in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_text_that_never_ends_is_not_read(folder, monkeypatch, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_text("{" + " " * 2000, encoding="utf-8")
    monkeypatch.setattr(files, "LARGEST_TEXT", 1000)
    assert "it has 2,001 bytes, and at most 1,000 are read" in refusal(folder, CheckpointError)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_that_is_too_deep_is_named(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_text("[" * 200_000, encoding="utf-8")
    assert name in refusal(folder, CheckpointError)


def test_a_model_that_does_not_fit_is_refused_with_the_way_out(folder, monkeypatch):
    empty = torch.empty

    def full(*shape, device=None, **how):
        if device == torch.device("cpu"):  # not the outline, which is on the meta device
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        return empty(*shape, device=device, **how)

    monkeypatch.setattr(torch, "empty", full)
    message = refusal(folder, DeviceError)
    assert "cpu has no memory left for 4,656 bytes of weights: close other programs" in message


def test_quantised_weights_are_refused(folder):
    rewrite(folder, lambda t: t.update({n: x.to(torch.int8) for n, x in t.items() if "wpe" in n}))
    assert "wpe.weight is stored as I8; only unquantised float" in refusal(folder, CheckpointError)


def test_another_architecture_is_refused_by_name(folder):
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    message = refusal(folder, ConfigError)
    assert f"{folder / 'config.json'}: config.json describes a 'llama' model" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_config_that_is_no_json_object_is_named(folder, text):
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert f"{folder / 'config.json'} is not readable as JSON" in refusal(folder, CheckpointError)


def test_a_config_that_is_no_utf8_is_named(folder):
    (folder / "config.json").write_bytes(b'{"model_type": "\xff"}')
    assert "config.json is not readable as JSON" in refusal(folder, CheckpointError)


def test_a_folder_without_config_is_named(folder):
    (folder / "config.json").unlink()
    says = f"{folder} has no config.json, so it is no model folder: give a name (story, "
    assert says in refusal(folder, ModelNotFoundError)


def test_a_folder_without_weights_is_named(folder):
    (folder / "model.safetensors").unlink()
    message = refusal(folder, CheckpointError)
    assert f"{folder} has no weights: model.safetensors or pytorch_model.bin" in message


def test_a_missing_shard_is_named(folder):
    shard(folder, "model.safetensors", save_file)
    (folder / "model-00002-of-00003.safetensors").unlink()
    message = refusal(folder, CheckpointError)
    assert "lists 3 files and 1 of them are missing (model-00002-of-00003.safetensors)" in message


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"weight_map": 3}'])
def test_an_unreadable_index_is_named(folder, text):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    assert "model.safetensors.index.json is no index of weights" in refusal(folder, CheckpointError)


def test_an_index_cannot_lead_out_of_its_folder(model, folder, tmp_path):
    save_model(model, tmp_path / "elsewhere")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"transformer.wte.weight": "../elsewhere/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert "may leave its folder" in refusal(folder, CheckpointError)


class Bomb:
    """Pickled, this writes a file wherever it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("plain", [False, True], ids=["torch.save", "pickle"])
def test_code_in_a_pickle_is_never_run(folder, tmp_path, plain):
    (folder / "model.safetensors").unlink()
    path, target = folder / "pytorch_model.bin", tmp_path / "boom"
    tensors = {"transformer.wte.weight": Bomb(target)}
    path.write_bytes(pickle.dumps(tensors)) if plain else torch.save(tensors, path)
    message = refusal(folder, CheckpointError)
    assert f"{path} cannot be read" in message
    assert "objects, which are never run" in message
    assert not target.exists()
    torch.load(path, weights_only=False) if not plain else pickle.loads(path.read_bytes())
    assert target.exists()  # the bomb was live


@pytest.mark.parametrize("keep", [0, 10, -100])
def test_a_truncated_pickle_is_named(folder, keep):
    path = folder / "pytorch_model.bin"
    torch.save(load_file(folder / "model.safetensors"), path)
    (folder / "model.safetensors").unlink()
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path} cannot be read" in refusal(folder, CheckpointError)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(128, 12),  # one number that claims to be many
        torch.zeros(128, 12).to_sparse(),
        torch.zeros(128, 12, device="meta"),
    ],
    ids=["expanded", "sparse", "meta"],
)
def test_a_tensor_whose_numbers_are_not_in_the_file_is_refused(folder, tensor):
    (folder / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": tensor}, folder / "pytorch_model.bin")
    message = refusal(folder, CheckpointError)
    assert "does not hold all numbers of transformer.wte.weight" in message


@pytest.mark.parametrize(
    "content",
    [{"model": {"a": torch.zeros(2)}, "step": 3}, {0: torch.zeros(2)}, [torch.zeros(2)]],
    ids=["nested", "numbered", "list"],
)
def test_a_pickle_of_more_than_tensors_is_named(folder, content):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert "holds more than named tensors" in refusal(folder, CheckpointError)


def test_a_device_that_does_not_exist_is_named_before_anything_is_read(folder):
    with pytest.raises(DeviceError, match="no device 'cuda:99'"):
        load_model(folder, device="cuda:99")


# Writing: all or nothing


def test_saving_over_a_folder_replaces_the_model_and_keeps_the_rest(folder):
    (folder / "merges.txt").write_text("a b\n", encoding="utf-8")
    other = scrambled(UNTIED)
    save_model(other, folder)
    assert_same_weights(other, load_model(folder, device="cpu"))
    names = {"merges.txt", "config.json", "generation_config.json", "model.safetensors"}
    names.add("lineage.json")
    assert {path.name for path in folder.iterdir()} == names


def test_a_loaded_model_does_not_depend_on_its_file(model, folder):
    loaded = load_model(folder, device="cpu")
    path = folder / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))  # in place, as a careless program would
    assert_same_weights(model, loaded)
    save_model(loaded, folder)
    assert_same_weights(model, load_model(folder, device="cpu"))


@pytest.mark.parametrize("below", [(), ("model",), ("a", "b")])
def test_a_folder_that_cannot_be_made_is_named(model, tmp_path, below):
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    target = tmp_path.joinpath("file", *below)
    with pytest.raises(OutputError) as caught:
        save_model(model, target)
    assert f"cannot write to {target}: " in str(caught.value)
    assert "choose a folder that you may write to" in str(caught.value)
    assert contents(tmp_path) == {str(tmp_path / "file"): b"kept"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize(("owner", "call"), [(os, "replace"), (Path, "mkdir")])
def test_a_system_that_refuses_is_named_and_nothing_is_left(
    model, folder, monkeypatch, owner, call, number
):
    before = contents(folder)
    target, asked = folder.parent / "new" / "deep", []

    def refused(*args, **kwargs):
        asked.append(call)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, refused)
        with pytest.raises(OutputError) as caught:
            save_model(model, target)
    assert f"cannot write to {target}: {os.strerror(number)}; choose" in str(caught.value)
    assert asked and contents(folder.parent) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_what_was_there(model, folder, monkeypatch, error):
    before = contents(folder)

    def broken_save(tensors, path, metadata):
        path.write_bytes(b"half a fi")
        raise error

    monkeypatch.setattr(pretrained, "save_file", broken_save)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        save_model(scrambled(CONFIG), folder)
    if expected is OutputError:
        assert f"cannot write to {folder}: No space left on device" in str(caught.value)
    assert contents(folder) == before
    with pytest.raises(expected):
        save_model(model, folder.parent / "new" / "deep")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_weight_too_large_for_half_precision_is_refused(model, tmp_path):
    with torch.no_grad():
        model.h[1].mlp.c_fc.weight[2, 3] = 1e5
    with pytest.raises(OutputError) as caught:
        save_model(model, tmp_path / "half", dtype="float16")
    assert "h.1.mlp.c_fc.weight reaches 1e+05, more than torch.float16 can hold (6.55e+04)" in str(
        caught.value
    )
    assert not (tmp_path / "half").exists()
    save_model(model, tmp_path / "half", dtype="bfloat16")


# The front door


@pytest.fixture
def with_tokenizer(tmp_path):
    """A folder with a model of so many rows and a tokenizer of 260 tokens."""

    def make(rows: int) -> Path:
        config = GPT2Config(vocab_size=rows, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        save_model(scrambled(config), tmp_path / "both")
        Tokenizer.train(["the theme of the thesis"], vocab_size=260).save(tmp_path / "both")
        return tmp_path / "both"

    return make


@pytest.mark.parametrize("rows", [260, 320], ids=["exact", "padded"])
def test_load_gives_model_and_tokenizer(with_tokenizer, rows):
    model, tokenizer = load(with_tokenizer(rows), device="cpu", dtype="bfloat16")
    assert (model.config.vocab_size, tokenizer.vocab_size) == (rows, 260)
    assert (model.dtype, model.training) == (torch.bfloat16, False)
    assert model(tokenizer.encode("the theme")).shape[-1] == rows


def test_a_tokenizer_larger_than_the_model_is_refused(with_tokenizer):
    with pytest.raises(TokenizerError, match="has 260 tokens, the model only 259 embeddings"):
        load(with_tokenizer(259), device="cpu")


# The published sizes


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("distilgpt2", 81_912_576),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_parameter_counts_of_the_published_sizes(name, count):
    assert sum(parameter.numel() for parameter in outline(SIZES[name]).parameters()) == count


def test_gpt2_has_the_shapes_and_constants_that_the_seed_printed():
    """S-39, read off the seed's ``print(model)``; its c_attn 768->2304 is (out, in) here."""
    model = outline(SIZES["gpt2"])
    assert model.wte.weight.shape == model.output_weight.shape == (50257, 768)
    assert model.wpe.weight.shape == (1024, 768)
    assert len(model.h) == 12
    for block in model.h:
        assert block.attn.c_attn.weight.shape == (2304, 768)
        assert block.attn.c_proj.weight.shape == (768, 768)
        assert block.mlp.c_fc.weight.shape == (3072, 768)
        assert block.mlp.c_proj.weight.shape == (768, 3072)
        assert block.ln_1.eps == block.ln_2.eps == model.ln_f.eps == 1e-5
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    assert model.config.attn_pdrop == 0.1
    assert model.config.activation_function == "gelu_new"


# Cost


PEAK = """
import sys, threading, time
from cleangpt2.model.pretrained import load_model

def resident_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))

load_model(sys.argv[2], device="cpu")  # what loading imports is not what it costs
before, peak, stop = resident_mb(), 0.0, False

def watch():
    global peak
    while not stop:
        peak = max(peak, resident_mb())
        time.sleep(0.001)

watcher = threading.Thread(target=watch)
watcher.start()
model = load_model(sys.argv[1], device="cpu", dtype=sys.argv[3])
stop = True
watcher.join()
print(max(peak, resident_mb()) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory counters")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_takes_the_memory_of_one_model(folder, tmp_path, dtype):
    config = GPT2Config(vocab_size=8192, n_positions=64, n_embd=768, n_layer=8, n_head=4)
    save_model(GPT2(config), tmp_path / "large")
    bytes_each = 4 if dtype == "float32" else 2
    size_mb = sum(p.numel() for p in outline(config).parameters()) * bytes_each / 2**20
    done = run_python("-c", PEAK, str(tmp_path / "large"), str(folder), dtype)
    assert done.returncode == 0, done.stderr
    assert 0.8 * size_mb < float(done.stdout) < 1.3 * size_mb
