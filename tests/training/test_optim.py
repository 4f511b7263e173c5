import torch

from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.optim import clip, optimizers, set_lr

MODEL = GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2)


def test_every_parameter_is_moved_by_one_optimiser():
    model = GPT2(MODEL)
    for name in ("muon", "adamw"):
        opts = optimizers(model, PretrainConfig(optimizer=name))
        moved = [id(p) for opt in opts for group in opt.param_groups for p in group["params"]]
        assert sorted(moved) == sorted(id(p) for p in model.parameters())


def test_muon_gets_the_matrices_of_the_blocks_only():
    model = GPT2(MODEL)
    muon, adamw = optimizers(model, PretrainConfig())
    of_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    named = {name for name, p in model.named_parameters() if id(p) in of_muon}
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert named == {f"h.{layer}.{part}.weight" for layer in range(2) for part in parts}
    assert adamw.param_groups[0]["weight_decay"] == 0


def test_the_schedule_reaches_both_optimisers():
    config = PretrainConfig(steps=100, warmup=10, lr=1.0, muon_lr=3.0)
    opts = optimizers(GPT2(MODEL), config)
    assert set_lr(opts, config, 4) == 0.5
    assert [opt.param_groups[0]["lr"] for opt in opts] == [1.5, 0.5]


def test_clipping_shortens_and_reports_the_norm():
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip(layer, 1.0) == 5.0
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.6, 0.8]]))
