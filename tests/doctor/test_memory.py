"""Whether a model fits."""

import pytest
import torch

from cleangpt2.device import Memory, main_memory
from cleangpt2.doctor import memory as room
from cleangpt2.doctor.memory import fit, memory

CPU = torch.device("cpu")
GB = 10**9


def test_this_machine_has_memory_for_the_bundled_model():
    here = main_memory()
    assert here.total is not None and here.total > 10**8
    assert {finding.verdict for finding in memory("story", CPU, torch.float32)} == {"ok"}


@pytest.mark.parametrize(
    ("dtype", "verdicts"),
    [(torch.float32, ["failed", "ok"]), (torch.bfloat16, ["warning", "ok"])],
)
def test_gpt2_xl_fits_into_5_gb_in_16_bits_alone(monkeypatch, dtype, verdicts):
    """1,557,611,200 numbers, and 48 layers x 2 x 1600 x 1024 of cache."""
    monkeypatch.setattr(room, "main_memory", lambda: Memory(8 * GB, 5 * GB))
    found = list(memory("gpt2-xl", CPU, dtype))[1:]
    assert [finding.verdict for finding in found] == verdicts
    assert "6.23 GB of weights, 629.1 MB for a full context: more than the 5.00 GB" in (
        found[0].detail
    )
    assert "3.12 GB of weights" in found[1].detail
    assert "--dtype bfloat16" in found[0].advice


def test_what_is_free_counts_and_else_the_total():
    def verdict(here):
        return fit("model", 3 * GB, 1 * GB, here, is_chosen=True).verdict

    assert verdict(Memory(8 * GB, 4 * GB)) == "ok"
    assert verdict(Memory(8 * GB, 4 * GB - 1)) == "failed"
    assert verdict(Memory(8 * GB, None)) == "ok"
    assert verdict(Memory(None, None)) == "not run"


def test_a_model_of_unknown_size_is_no_failure_of_memory(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    found = list(memory(str(tmp_path), CPU, torch.float32))
    assert [finding.verdict for finding in found] == ["ok", "not run"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_says_how_much_it_has():
    found = list(memory("story", torch.device("cuda:0"), torch.float32))
    assert [finding.subject for finding in found[:2]] == ["main memory", "cuda:0"]
    assert {finding.verdict for finding in found} == {"ok"}
