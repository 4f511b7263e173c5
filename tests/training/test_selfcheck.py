"""A trainer asks whether the device computes rightly before it trains on it."""

import numpy as np
import pytest
import torch

from cleangpt2.errors import DeviceError
from cleangpt2.model import selfcheck
from cleangpt2.model.config import GPT2Config
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.pretrain import pretrain

MODEL = GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=2)
TOKENS = np.arange(200, dtype=np.uint16) % 8


def config(precision: str) -> PretrainConfig:
    return PretrainConfig(
        steps=1, batch_size=2, context=4, warmup=0, save_every=1, eval_every=1, precision=precision
    )


@pytest.mark.parametrize(
    ("precision", "dtypes"), [("fp32", {"float32"}), ("bf16", {"float32", "bfloat16"})]
)
def test_each_data_type_it_trains_in_is_checked(tmp_path, monkeypatch, precision, dtypes):
    asked = []

    def first_mistake(device, dtype, path):
        asked.append(str(dtype).removeprefix("torch."))
        return "wrong, for a test" if dtype == torch.bfloat16 and path == "causal" else None

    monkeypatch.setenv("CLEANGPT2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(selfcheck, "_seen", {})
    monkeypatch.setattr(selfcheck, "first_mistake", first_mistake)
    if precision == "bf16":
        with pytest.warns(UserWarning, match="cpu in bfloat16 .* 'causal': wrong, for a test"):
            model = pretrain(MODEL, config(precision), TOKENS, tmp_path / "run")
    else:
        model = pretrain(MODEL, config(precision), TOKENS, tmp_path / "run")
    assert set(asked) == dtypes
    assert model.h[0].attn.path == ("mask" if precision == "bf16" else "causal")


def test_a_wrong_device_is_refused_before_the_folder_is_touched(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEANGPT2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(selfcheck, "_seen", {})
    monkeypatch.setattr(selfcheck, "first_mistake", lambda *_: "wrong, for a test")
    with pytest.raises(DeviceError, match="cpu in float32 .* 'plain': wrong, for a test"):
        pretrain(MODEL, config("fp32"), TOKENS, tmp_path / "run")
    assert not (tmp_path / "run").exists()
