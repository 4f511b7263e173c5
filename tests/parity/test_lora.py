"""PEFT opens our adapters and we open its: no output differs by a bit more than the base's do."""

import pytest
import torch

from cleangpt2.model.adapter_files import load_adapter, save_adapter
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.lora import add_adapter
from cleangpt2.model.lora_config import LoraConfig
from cleangpt2.model.pretrained import save_model
from tests.helpers import require
from tests.model.hard_weights import deviation, hard_model

peft = require("peft")
transformers = require("transformers")

# PEFT asks transformers a question in words that transformers is about to forget.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SHAPE = GPT2Config(vocab_size=61, n_positions=16, n_embd=24, n_layer=2, n_head=3)
IDS = torch.arange(2 * 9).reshape(2, 9) % 61


@pytest.fixture
def folders(tmp_path):
    model = hard_model(SHAPE).eval()
    save_model(model, tmp_path / "base")
    return model, tmp_path


def scramble(parameters) -> None:
    numbers = torch.Generator().manual_seed(4)
    for parameter in parameters:
        torch.nn.init.normal_(parameter, 0, 0.2, generator=numbers)


def theirs(folder):
    model = transformers.GPT2LMHeadModel.from_pretrained(folder, attn_implementation="sdpa")
    return model.eval()


@torch.no_grad()
def test_peft_opens_ours(folders):
    model, tmp_path = folders
    add_adapter(model, LoraConfig(r=4, alpha=10))
    scramble(p for p in model.parameters() if p.requires_grad)
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    opened = peft.PeftModel.from_pretrained(theirs(tmp_path / "base"), tmp_path / "adapter")
    assert deviation(opened(IDS).logits, model(IDS)) < 1e-5
    written = {n: p for n, p in opened.named_parameters() if "lora_" in n}
    ours = [p for n, p in model.named_parameters() if n.endswith((".A", ".B"))]
    assert len(written) == len(ours) == 16
    assert all(any(torch.equal(a, b) for b in ours) for a in written.values())


@torch.no_grad()
@pytest.mark.parametrize("targets", [["c_attn", "c_proj", "c_fc"], ["c_attn"]])
def test_we_open_pefts(folders, targets):
    model, tmp_path = folders
    config = peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(theirs(tmp_path / "base"), config).eval()
    scramble(p for n, p in adapted.named_parameters() if "lora_" in n)
    adapted.save_pretrained(tmp_path / "adapter")
    load_adapter(model, tmp_path / "adapter")
    assert deviation(model(IDS), adapted(IDS).logits) < 1e-5
