r"""GPT-2 124M from nothing on ten billion tokens of FineWeb, on the schedule of llm.c.

    python -m cleangpt2.recipes.gpt2_124m --data fineweb --only-data
    torchrun --standalone --nproc-per-node 8 \
        -m cleangpt2.recipes.gpt2_124m --data fineweb

The first line reads the corpus from the hub as a stream (some 30 GB, of which 20 GB of tokens stay)
and needs the extra `data`; the second trains on 8 GPUs. Any number of GPUs that divides the batch
trains the same model; one of 80 GB: without torchrun, and with `--micro-batches 4`.

    corpus      --corpus fineweb (default), fineweb-edu or openwebtext; GPT-2's vocabulary
    batch       512 sequences of 1,024 tokens: 524,288 tokens a step, 18,865 steps
    AdamW       0.9, 0.95, weight decay 0.1, gradients clipped at 1
    schedule    700 steps of warm-up to 6e-4, half a cosine to 0
    precision   bf16, compiled; no dropout

Source: karpathy/llm.c, `scripts/run_gpt2_124M.sh`. It reaches 3.28 to 3.29 nats per token of held-
out FineWeb, where OpenAI's own 124M has 3.29 (README of modded-nanogpt), in 94 minutes on 8 A100s
(about $20) or 45 on 8 H100s. One H100 at half its peak takes 4.7 hours. nanoGPT trains 30 times as
long on OpenWebText (300 G tokens, 4 days on 8 A100s) and reaches 2.85 there.

Not run in full by the authors of this package, who had no such hardware; the tests take two steps
of it with a small shape and corpus. `--steps 2 --batch-size 8` is a rehearsal.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.corpus import Corpus, TokenRow
from cleangpt2.data.index import INDEX
from cleangpt2.data.prepare import prepare
from cleangpt2.data.workers import usable_processors
from cleangpt2.hub import locate
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.convert.tokenizers import tokenizer_of
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.model.pretrained import save
from cleangpt2.recipes.options import changed, in_one_line, parser
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.pretrain import pretrain
from cleangpt2.training.runfolder import MODEL
from cleangpt2.training.runtime import start
from cleangpt2.training.shape import new_model
from cleangpt2.training.step import summed_loss
from cleangpt2.training.validation import held_out_bits_per_byte

CORPORA = {
    "fineweb": "hf:HuggingFaceFW/fineweb:sample-10BT",
    "fineweb-edu": "hf:HuggingFaceFW/fineweb-edu:sample-10BT",
    "openwebtext": "hf:Skylion007/openwebtext",
}

TRAINING = PretrainConfig(
    steps=18_865, batch_size=512, micro_batches=1, context=1024,
    optimizer="adamw", lr=6e-4, weight_decay=0.1, beta1=0.9, beta2=0.95, clip=1.0,
    warmup=700, schedule="cosine", final_lr=0.0,
    precision="bf16", compile=True, eval_every=250, save_every=1000,
)  # fmt: skip

SHAPE = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024}


def prepare_corpus(
    sources: Sequence[str], folder: Path, tokenizer: str = "gpt2", *, workers: int | None = None
) -> None:
    """Make the token shards in `folder`, or go on where that stopped; one document in 1,000 waits.

    Args:
        sources: As for ``data.prepare``: files, folders, or data sets of the hub.
        tokenizer: A model's name, whose vocabulary to use.
        workers: Processes that encode; one for each processor if not given.
    """
    prepare(
        sources,
        tokenizer_of(locate(tokenizer)),
        folder,
        PrepareConfig(validation=0.001),
        tokenizer_name=tokenizer,
        workers=workers or usable_processors(),
    )


def model_config(tokenizer: Tokenizer) -> GPT2Config:
    """GPT-2's smallest size, with the tokenizer's vocabulary and no dropout."""
    return new_model(tokenizer, **SHAPE)


def train(
    data: Path,
    out: Path,
    *,
    config: PretrainConfig = TRAINING,
    shape: GPT2Config | None = None,
    device: str = "cpu",
    fresh: bool = False,
) -> float:
    """Train on a prepared folder, leave the model in ``out/model``; return nats per token.

    Args:
        config: Other settings than llm.c's.
        shape: Another shape than GPT-2's.

    Raises:
        DataError: The folder holds no finished corpus.
    """
    with start(device) as runtime:
        with runtime.together():
            corpus = Corpus(data)
            tokenizer = corpus.tokenizer()
            held_out = corpus.held_out(tokenizer)
        model = pretrain(
            shape or model_config(tokenizer),
            config,
            corpus.train,
            out,
            validate=(lambda m: held_out_bits_per_byte(m, tokenizer, held_out, runtime=runtime))
            if held_out
            else None,
            device=runtime.device,
            fresh=fresh,
        )
        nats = math.nan
        with runtime.together():
            if runtime.is_main:
                save(
                    model, tokenizer, out / MODEL, made_by="recipes/gpt2_124m", data=[data / INDEX]
                )
                nats = nats_per_token(model, corpus.validation, config.context)
        return runtime.broadcast(nats)


@torch.no_grad()
def nats_per_token(model: GPT2, tokens: TokenRow, T: int, *, windows: int = 256) -> float:
    """Loss on packed held-out text, in windows of T tokens as llm.c reads its validation shard.

    Unlike bits per byte it compares between models of one vocabulary only. NaN without a window.
    """
    starts = range(0, min(len(tokens) - T, windows * T), T)
    nats = 0.0
    with model.evaluating():
        for start in starts:
            row = torch.from_numpy(tokens[start : start + T + 1].astype("int64")).unsqueeze(0)
            nats += float(summed_loss(model, row[:, :-1], row[:, 1:]))
    return nats / (len(starts) * T) if len(starts) else math.nan


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, and prepare the corpus or train."""
    flags = parser(__doc__, "gpt2_124m")
    flags.add_argument("--data", type=Path, required=True, help="folder of the prepared corpus")
    flags.add_argument("--corpus", choices=list(CORPORA), default="fineweb")
    flags.add_argument("--only-data", action="store_true", help="prepare the corpus and stop")
    options = flags.parse_args(arguments)
    if options.only_data:
        prepare_corpus([CORPORA[options.corpus]], options.data)
        return
    with start(options.device) as runtime:
        nats = train(
            options.data,
            options.out,
            config=changed(TRAINING, options),
            device=str(runtime.device),
            fresh=options.fresh,
        )
        if runtime.is_main:
            print(f"{nats:.4f} nats per held-out token; the model: {options.out / MODEL}")


if __name__ == "__main__":
    in_one_line(main)
