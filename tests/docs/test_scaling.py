"""``docs/scaling.md``: its tables are those of its script, and its command lines work."""

import doctest
import importlib
import re
import shlex
import sys

import pytest

from cleangpt2.training import arithmetic
from tests.helpers import ROOT, run_cli, run_python

DOCUMENT = ROOT / "docs" / "scaling.md"


@pytest.fixture(scope="module")
def tables():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("tables")
        for name in ("tables", "machines"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def machines(tables):
    return importlib.import_module("machines")


@pytest.fixture(scope="module")
def text():
    return DOCUMENT.read_text(encoding="utf-8")


def test_every_table_is_what_the_script_computes(tables, text):
    assert set(re.findall(r"<!-- table ([\w-]+) -->", text)) == set(tables.TABLES)
    assert tables.filled(text) == text, "run `python docs/tables.py`"


def test_the_script_notices_another_formula(tables, text, monkeypatch):
    monkeypatch.setattr(tables, "flops_per_token", lambda *_args: 1)
    assert tables.filled(text) != text


def test_the_examples_of_the_script_hold(tables):
    assert doctest.testmod(tables).failed == 0
    assert doctest.testmod(tables).attempted > 2


def test_a_step_waits_for_what_the_backward_pass_does_not_hide(machines):
    assert machines.Step(compute=3.0, traffic=2.0).seconds == 3.0
    assert machines.Step(compute=3.0, traffic=2.5).seconds == 3.5
    assert machines.Step(compute=3.0, traffic=3.0).efficiency == 0.75


def test_the_break_even_of_the_text_is_that_of_the_steps(tables):
    """Where 2 tokens x rate / pace says so, traffic takes as long as the backward pass."""
    config = tables.SIZES["gpt2-xl"]
    tokens = 2 * tables.H100.peak * tables.ATTAINED / tables.H100.network
    one = tables.step(config, int(tokens * 1024), 1024)
    assert one.traffic == pytest.approx(one.compute * 2 / 3, rel=0.12)  # attention comes on top


def test_what_fits_is_the_most_that_fits(tables):
    config = tables.SIZES["gpt2-xl"]

    def needs(tokens):
        return arithmetic.process_memory(config, tokens=tokens, precision="bf16")

    n = tables.fitting(needs)
    assert needs(n * 1024).total <= tables.ROOM < needs((n + 1) * 1024).total


def commands(text):
    """The words of each command in the document's blocks of code, line breaks joined."""
    blocks = re.findall(r"^```\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [
        shlex.split(line)
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


def test_the_flags_of_the_launch_lines_exist(text):
    known = {
        "pretrain": run_cli("pretrain", "--help").stdout,
        "torchrun": run_python("-m", "torch.distributed.run", "--help").stdout,
    }
    lines = commands(text)
    assert len(lines) == 3
    for words in lines:
        ours = words.index("pretrain")
        assert words[0] == "torchrun"
        for place, word in enumerate(words):
            if word.startswith("--"):
                assert word in known["pretrain" if place > ours else "torchrun"], word


def test_the_flags_named_in_the_prose_exist(text):
    known = run_cli("pretrain", "--help").stdout
    launcher = run_python("-m", "torch.distributed.run", "--help").stdout
    named = set(re.findall(r"`(--[a-z][a-z-]*)", text))
    assert {"--sharding", "--micro-batches", "--recompute"} <= named
    assert [flag for flag in named if flag not in known + launcher] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs signals and forks")
def test_the_first_launch_line_trains(text, tmp_path):
    """As it stands, but for two processes, the CPU, and a model and corpus of seconds."""
    (tmp_path / "tokens").write_text("once upon a time " * 2000, encoding="utf-8")
    words = commands(text)[0][1:]
    words[words.index("--nproc-per-node") + 1] = "2"
    small = {"--batch-size": "4", "--context": "32", "--n-positions": "32", "--precision": "fp32"}
    for flag, value in small.items():
        words[words.index(flag) + 1] = value
    words += shlex.split("--steps 2 --warmup 0 --n-layer 1 --n-head 2 --n-embd 16 --device cpu")
    done = run_python(
        "-m", "torch.distributed.run", *words,
        env={"OMP_NUM_THREADS": "1"}, cwd=tmp_path, timeout_s=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "large" / "model" / "model.safetensors").is_file()
