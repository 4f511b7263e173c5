"""``cleangpt2 info``: right figures, from what is at hand, without reading weights."""

import dataclasses
import json
from collections import Counter

import pytest
import torch

from cleangpt2.cli.main import main
from cleangpt2.errors import CheckpointError, OfflineError
from cleangpt2.model import weights
from cleangpt2.model.cache import KVCache
from cleangpt2.model.config import SIZES, GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.pretrained import save_model
from cleangpt2.model.summary import (
    PARTS,
    Summary,
    parameters,
    part_of,
    summarise,
    weight_differences,
)
from tests import fake_hub
from tests.helpers import run_cli, run_python

CONFIG = GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=2, n_head=2)


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """An empty hub cache, whatever this machine has downloaded."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    save_model(GPT2(CONFIG), tmp_path / "model")
    return tmp_path / "model"


def test_the_parts_of_gpt2(no_cache):
    """Counted by hand from V = 50257, T = 1024, C = 768, L = 12."""
    V, T, C, L = 50257, 1024, 768, 12
    summary = summarise("gpt2")
    assert summary.parameters == {
        "token embedding": V * C,
        "position embedding": T * C,
        "attention": L * (3 * C * C + 3 * C + C * C + C),
        "MLP": L * (4 * C * C + 4 * C + 4 * C * C + C),
        "layer norms": (2 * L + 1) * 2 * C,
        "output": 0,
    }
    assert summary.total == 124_439_808
    assert summary.stored is None
    assert summary.origin == "the table of published sizes; no weights on this machine"


@pytest.mark.parametrize("changes", [{}, {"n_inner": 20}, {"tie_word_embeddings": False}])
def test_the_parts_of_any_shape_are_those_of_the_model(changes):
    config = dataclasses.replace(CONFIG, **changes)
    counted = Counter(dict.fromkeys(PARTS, 0))
    for name, parameter in GPT2(config).named_parameters():
        counted[part_of(name)] += parameter.numel()
    assert parameters(config) == counted


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("distilgpt2", 81_912_576),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("openai-community/gpt2-xl", 1_557_611_200),
    ],
)
def test_published_sizes_need_no_files(no_cache, name, total):
    assert summarise(name).total == total


def test_memory_of_gpt2(no_cache):
    memory = summarise("gpt2").memory()
    assert memory["weights"] == {
        "float32": 497_759_232,
        "bfloat16": 248_879_616,
        "int8": 124_439_808,
    }
    assert memory["cache, one token"] == {"float32": 2 * 12 * 768 * 4, "bfloat16": 2 * 12 * 768 * 2}
    assert memory["cache, full context"]["float32"] == 1024 * 2 * 12 * 768 * 4
    assert memory["training with AdamW"] == {"float32": 4 * 497_759_232}


def test_the_cache_takes_what_info_says():
    cache = KVCache(CONFIG, 1, like=torch.zeros(0))
    held = sum(layer.k.nbytes + layer.v.nbytes for layer in cache.layers)
    model = Summary(name="", origin="", config=CONFIG, parameters={}, stored=None)
    assert model.memory()["cache, full context"]["float32"] == held
    assert model.memory()["cache, one token"]["float32"] * CONFIG.n_positions == held


def test_a_folder_is_described_from_its_headers(folder, monkeypatch):
    def refuse(_self, name):
        raise AssertionError(f"info read the weights of {name}")

    whole = weights.safe_open

    class HeadersOnly:
        """An open file that gives shapes and types and nothing else."""

        def __init__(self, path, framework):
            self.file = whole(path, framework=framework)
            self.keys, self.get_slice = self.file.keys, self.file.get_slice

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            self.file.__exit__(None, None, None)

        get_tensor = refuse

    monkeypatch.setattr(weights, "safe_open", HeadersOnly)
    summary = summarise(folder)
    assert summary.stored is not None
    assert summary.stored.files == ("model.safetensors",)
    assert summary.stored.dtypes == ("float32",)
    assert summary.stored.tensors == 2 + 12 * CONFIG.n_layer + 2
    assert summary.stored.bytes == (folder / "model.safetensors").stat().st_size
    assert summary.total == sum(p.numel() for p in GPT2(CONFIG).parameters())
    assert summary.origin == f"{folder / 'config.json'} and the headers of the weight files"


def test_an_untied_output_has_parameters_of_its_own(tmp_path):
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2,
                        tie_word_embeddings=False)  # fmt: skip
    save_model(GPT2(config), tmp_path)
    summary = summarise(tmp_path)
    assert summary.parameters["output"] == 50 * 8
    assert summary.shapes()["output"] == "8 -> 50"


def test_a_folder_without_weights_is_described_from_its_config(folder):
    (folder / "model.safetensors").unlink()
    summary = summarise(folder)
    assert summary.stored is None
    assert summary.origin == f"{folder / 'config.json'}; no weights on this machine"


def test_weights_that_do_not_fit_the_config_are_an_error(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 51}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="wte.weight is 50 x 8, not 51 x 8"):
        summarise(folder)


def test_an_unknown_hub_model_costs_its_config_alone(folder, tmp_path):
    code = (
        "from cleangpt2.model.summary import summarise;"
        "found = summarise('me/model'); print(found.total, found.origin)"
    )
    with fake_hub.serve() as hub:
        hub.add_folder("me/model", folder)
        done = run_python("-c", code, env=hub.env(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        fetched = {path.rsplit("/", 1)[1] for method, path, _ in hub.requests if method == "GET"}
    total = sum(parameter.numel() for parameter in GPT2(CONFIG).parameters())
    assert done.stdout.strip() == f"{total} config.json on the hub; no weights on this machine"
    assert fetched == {"config.json"}


def test_an_unknown_hub_model_offline_names_the_fix(no_cache):
    with pytest.raises(OfflineError, match="HF_HUB_OFFLINE is set: unset it"):
        summarise("me/model")


def test_weight_differences_are_found_part_by_part(folder, tmp_path):
    model = GPT2(CONFIG)
    save_model(model, folder)
    with torch.no_grad():
        model.h[1].mlp.c_fc.weight[3, 4] += 0.5
        model.ln_f.bias[2] -= 0.25
    save_model(model, tmp_path / "other")
    assert weight_differences(folder, tmp_path / "other") == pytest.approx(
        {
            "token embedding": 0.0,
            "position embedding": 0.0,
            "attention": 0.0,
            "MLP": 0.5,
            "layer norms": 0.25,
        }
    )


def test_parts_of_other_shapes_have_no_difference(folder, tmp_path):
    save_model(GPT2(GPT2Config(vocab_size=60, n_positions=16, n_embd=8, n_layer=2, n_head=2)),
               tmp_path / "other")  # fmt: skip
    differences = weight_differences(folder, tmp_path / "other")
    assert differences is not None
    assert differences["token embedding"] is None
    assert differences["attention"] > 0


def test_weight_differences_need_both_models_here(no_cache, folder):
    assert weight_differences(folder, "gpt2") is None


# The command


def test_the_page_of_one_model(no_cache, capsys):
    assert main(["info", "gpt2"]) == 0
    page = capsys.readouterr().out.splitlines()
    assert page[0] == "gpt2  124.4 M parameters"
    assert page[1] == "figures from the table of published sizes; no weights on this machine"
    assert "vocabulary      50,257" in page
    rows = {line.split("  ")[0]: line for line in page}
    assert (
        rows["attention"].split(maxsplit=1)[1].split("  ")[0] == "12 x (768 -> 2,304, 768 -> 768)"
    )
    assert "28,348,416  22.8%" in rows["attention"]
    assert rows["total"].endswith("124,439,808")
    assert rows["weights"].split() == ["weights", "497.8", "MB", "248.9", "MB", "124.4", "MB"]
    assert rows["cache, one token"].split()[3:] == ["73.7", "kB", "36.9", "kB"]


def test_columns_are_aligned(no_cache, capsys):
    assert main(["info", "gpt2"]) == 0
    page = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(page) if line.startswith("parameters"))
    table = page[start : start + len(PARTS) + 2]
    assert len({line.index(cell) + len(cell) for line, cell in (
        (table[0], "number"), (table[1], "38,597,376"), (table[-1], "124,439,808")
    )}) == 1  # fmt: skip
    assert not any(line != line.rstrip() for line in page)


def test_the_page_of_a_folder_says_what_is_on_disk(folder, capsys):
    assert main(["info", str(folder)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("on disk  model.safetensors: 28 tensors of float32, ")


def test_two_models_side_by_side(no_cache, capsys):
    assert main(["info", "gpt2", "--compare", "gpt2-xl"]) == 0
    page = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split() for line in page.splitlines()}
    assert rows["layers"] == ["layers", "12", "48", "differs"]
    assert rows["vocabulary"] == ["vocabulary", "50,257", "50,257"]
    assert rows["total"] == ["total", "124,439,808", "1,557,611,200", "x", "12.52"]
    assert "largest weight difference" not in page


def test_two_folders_side_by_side_show_how_far_the_weights_are_apart(folder, tmp_path, capsys):
    model = GPT2(CONFIG)
    save_model(model, folder)
    with torch.no_grad():
        model.wpe.weight[0, 0] += 2.0
    save_model(model, tmp_path / "other")
    assert main(["info", str(folder), "--compare", str(tmp_path / "other")]) == 0
    rows = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["parameters"][-3:] == ["largest", "weight", "difference"]
    assert rows["position embedding"][-1] == rows["total"][-1] == "2"
    assert rows["attention"][-1] == "0"


def test_json_of_one_and_of_two_models(no_cache, folder, capsys):
    assert main(["info", "gpt2-xl", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["parameters"]["total"] == 1_557_611_200
    assert GPT2Config.from_dict(one["config"]) == SIZES["gpt2-xl"]
    assert one["memory_bytes"]["weights"]["int8"] == 1_557_611_200
    assert main(["info", str(folder), "--compare", str(folder), "--json"]) == 0
    two = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in two["models"]] == [str(folder), str(folder)]
    assert set(two["largest_weight_difference"].values()) == {0.0}


def test_a_misspelt_model_costs_one_line(tmp_path):
    done = run_cli("info", "gpt2-xxl", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: no model 'gpt2-xxl'. Did you mean 'gpt2-xl'?")
    assert done.stderr.count("\n") == 1


def test_help_imports_no_torch():
    code = (
        "import sys; from cleangpt2.cli.main import main; code = main(['info', '--help']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cleangpt2 info story\n")
